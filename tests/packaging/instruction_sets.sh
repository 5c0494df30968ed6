#!/bin/sh
# sh instruction_sets.sh <folder> <compiler> <flags>...
# A program whose objects are compiled for one instruction set links and runs; one of two does not link, and the linker's
# report says which two. Exits with 77 where the compiler knows no two for this machine.
set -u
here=$(dirname "$0")
folder=$1
compiler=$2
shift 2
mkdir -p "$folder"

fail() {
  echo "$1"
  exit 1
}
compile() { # compile <object> <flags>...: <object>.cpp or what stands before the point of <object>.<name>
  object=$1
  shift
  "$compiler" "$@" -c "$here/${object%%.*}.cpp" -o "$folder/$object.o" || fail "$object does not compile"
}
link() { "$compiler" -pthread "$folder/main.o" "$folder/$1.o" -o "$folder/$1" 2>"$folder/report"; }

echo 'int main() {}' >"$folder/empty.cpp"
"$compiler" -fsyntax-only -mavx2 -mfma "$folder/empty.cpp" 2>/dev/null || exit 77
compile main "$@" -march=x86-64 &
compile other.same "$@" -march=x86-64
compile other.wider "$@" -march=x86-64 -mavx2 -mfma
wait
link other.same || fail "objects of one instruction set do not link: $(cat "$folder/report")"
"$folder/other.same" || fail "objects of one instruction set give no result"
link other.wider && fail "objects of two instruction sets link"
for symbol in moe_mamba_needs_one_instruction_set_in_all_objects moe_mamba_kernels_for_sse2 \
  moe_mamba_kernels_for_avx2_fma; do
  grep -q "$symbol" "$folder/report" || fail "the linker does not name $symbol: $(cat "$folder/report")"
done
