#!/bin/sh
# sh tests/gpu.sh [build folder]
# Builds the tests of the CUDA operations with nvcc, for this machine's device, and runs them one after the other; ends with
# a table. Needs the CUDA Toolkit and nothing else. The build folder is build-gpu/ by default.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build-gpu}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || {
  echo "nvcc is missing; please install the CUDA Toolkit (13.0 is the one tried) or put its nvcc on the PATH"
  exit 1
}
# The instructions of compute capability 9.0 that have no successor are only in code for 9.0a.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
case $capability in
'' | 90) gencode=arch=compute_90a,code=sm_90a ;;
*) gencode=arch=compute_$capability,code=sm_$capability ;;
esac

mkdir -p "$build" || exit 1
started=$(date +%s)
ls tests/gpu/*.cu | xargs -P "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)" -I {} sh -c '
  name=$(basename "$1" .cu)
  "$2" -std=c++20 -O3 -gencode="$3" -Iinclude -Itests "$1" -o "$4/$name" -lcublas >"$4/$name.log" 2>&1 ||
    { rm -f "$4/$name"; cat "$4/$name.log"; }' - {} "$nvcc" "$gencode" "$build"
table="built in $(($(date +%s) - started)) s for $gencode
"
status=0
for source in tests/gpu/*.cu; do
  name=$(basename "$source" .cu)
  began=$(date +%s)
  if [ -x "$build/$name" ]; then
    "$build/$name" >"$build/$name.log" 2>&1
    code=$?
    cat "$build/$name.log"
    outcome=$(tail -n 1 "$build/$name.log")
  else
    code=1 outcome="does not compile"
  fi
  [ $code -eq 0 ] || [ $code -eq 77 ] || status=1
  table="$table$(printf '%-20s %4d s   %s' "$name" $(($(date +%s) - began)) "$outcome")
"
done
printf '\n%s' "$table"
if [ $status -eq 0 ]; then echo "nothing failed"; else echo "something failed"; fi
exit $status
