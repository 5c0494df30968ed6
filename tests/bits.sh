#!/bin/sh
# sh tests/bits.sh [write] [cuda]
# Checks that results are bitwise unchanged: builds the programs of tests/bits, each with some definitions, and compares the
# hashes that they print (of outputs, gradients, trained parameters and more) with those stored in tests/fixtures/bits.
# `write` stores the new hashes instead. `cuda` builds the programs for this machine's CUDA device.
# Bits depend on the compiler, the C library and the instruction set, so there is one file per compiler and library, and the
# instruction set is fixed. With another compiler (CXX) or other flags (CXXFLAGS), store hashes in a file of your own, which
# MOE_MAMBA_BITS names, before you change anything. If hashes differ by default, but not with CXXFLAGS="-O1 -ffp-contract=off"
# before and after the change, the compiler merely fuses multiplications and additions in other places than before.
# Builds in build-bits/; exits with 77 if there are no stored hashes.
set -u
cd "$(dirname "$0")/.." || exit 1
write=false
backend=cpu
for argument; do
  case $argument in
  write) write=true ;;
  cuda) backend=cuda ;;
  *)
    echo "an argument is '$argument'; allowed: write, cuda"
    exit 1
    ;;
  esac
done

major() { sed 's/[^0-9]*\([0-9]*\).*/\1/'; }
case $backend in
cpu)
  compiler=${CXX:-g++}
  flags="-std=c++20 -march=x86-64-v3 ${CXXFLAGS:--O1} -Iinclude -Itests"
  libraries=-pthread
  library=$(getconf GNU_LIBC_VERSION 2>/dev/null | tr ' ' - || echo libc)
  name=$(basename "$compiler" | tr -d '0-9.-')-$($compiler -dumpversion | major)-$library
  ;;
cuda)
  compiler=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
  case $capability in
  '' | 90) capability=90a ;; # some instructions exist in code for 9.0a only
  esac
  dependencies=${MOE_MAMBA_DEPENDENCIES:+-I$MOE_MAMBA_DEPENDENCIES}
  flags="-std=c++20 ${CXXFLAGS:--O1} -gencode=arch=compute_$capability,code=sm_$capability -x cu -DMOE_MAMBA_TEST_CUDA
    -Iinclude -Itests $dependencies"
  libraries=-lcublas
  name=nvcc-$("$compiler" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')-sm_$capability
  ;;
esac
stored=${MOE_MAMBA_BITS:-tests/fixtures/bits/$name.txt}
build=build-bits/$name
rm -rf "$build"
mkdir -p "$build" || exit 1

started=$(date +%s)
for source in tests/bits/*.cpp; do
  echo "$compiler" $flags "$source" -o "$build/$(basename "$source" .cpp)" $libraries
done | xargs -P "$(nproc 2>/dev/null || echo 2)" -I {} sh -c '{} || echo "failed: {}"'
status=0
for source in tests/bits/*.cpp; do
  program=$build/$(basename "$source" .cpp)
  "$program" >>"$build/now.txt" || {
    echo "$program failed"
    status=1
  }
done
echo "$(wc -l <"$build/now.txt") hashes in $(($(date +%s) - started)) s"
[ $status -eq 0 ] || exit 1

if $write; then
  mkdir -p "$(dirname "$stored")"
  cp "$build/now.txt" "$stored"
  echo "written: $stored"
  exit 0
fi
[ -f "$stored" ] || {
  echo "no stored hashes: $stored is missing; to create it, check out an older commit and run: sh tests/bits.sh write"
  exit 77
}
awk '
  { hash = $NF; sub(/: [0-9a-f]+$/, "") }
  FNR == NR { stored[$0] = hash; next }
  !($0 in stored) { print "new:     " $0; next }
  stored[$0] == hash { same++ }
  stored[$0] != hash { print "differs: " $0; others++ }
  { delete stored[$0] }
  END {
    for (line in stored) { print "missing: " line; others++ }
    print same + 0 " hashes unchanged, " others + 0 " changed or missing"
    exit others > 0
  }' "$stored" "$build/now.txt"
