#!/bin/sh
# sh tests/bits.sh [write] [cuda]
# Whether every bit is still the same: builds the programs of tests/bits, each of some definitions, and compares what they
# print, hashes of outputs, gradients, trained parameters and more, with what is kept in tests/fixtures/bits. `write`
# keeps what they print now instead. `cuda` builds them for this machine's CUDA device.
# Bits depend on compiler, C library and instruction set, so there is a file for each compiler and library, and the
# instruction set is fixed. With another compiler (CXX) or other flags (CXXFLAGS) keep a file of your own before you
# change something: MOE_MAMBA_BITS names it. What differs as it is and not with CXXFLAGS="-O1 -ffp-contract=off", which
# gives the same bits otherwise, are products and sums that the compiler takes together in other places than before.
# Builds in build-bits/; exits with 77 where nothing is kept.
set -u
cd "$(dirname "$0")/.." || exit 1
write=false
backend=cpu
for argument; do
  case $argument in
  write) write=true ;;
  cuda) backend=cuda ;;
  *)
    echo "the argument is '$argument'; allowed: write, cuda"
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
  '' | 90) capability=90a ;; # some instructions are in code for 9.0a only
  esac
  dependencies=${MOE_MAMBA_DEPENDENCIES:+-I$MOE_MAMBA_DEPENDENCIES}
  flags="-std=c++20 ${CXXFLAGS:--O1} -gencode=arch=compute_$capability,code=sm_$capability -x cu -DMOE_MAMBA_TEST_CUDA
    -Iinclude -Itests $dependencies"
  libraries=-lcublas
  name=nvcc-$("$compiler" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')-sm_$capability
  ;;
esac
kept=${MOE_MAMBA_BITS:-tests/fixtures/bits/$name.txt}
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
  mkdir -p "$(dirname "$kept")"
  cp "$build/now.txt" "$kept"
  echo "written: $kept"
  exit 0
fi
[ -f "$kept" ] || {
  echo "nothing to compare with: $kept is missing; with the argument write an older commit writes it"
  exit 77
}
awk '
  { hash = $NF; sub(/: [0-9a-f]+$/, "") }
  FNR == NR { kept[$0] = hash; next }
  !($0 in kept) { print "new:     " $0; next }
  kept[$0] == hash { same++ }
  kept[$0] != hash { print "differs: " $0; others++ }
  { delete kept[$0] }
  END {
    for (line in kept) { print "missing: " line; others++ }
    print same + 0 " hashes are as kept, " others + 0 " are not"
    exit others > 0
  }' "$kept" "$build/now.txt"
