#!/bin/sh
# sh tests/gpu.sh [build folder]
# Builds the CUDA tests for this machine's device, runs them one after another and prints a table. The operations' tests need
# only the CUDA Toolkit; the models' tests also need g++ and Catch2, which is looked for in the folder
# MOE_MAMBA_DEPENDENCIES, with catch2/ in it, or in /usr/include if that is not set.
# The build folder is build-gpu/ by default.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build-gpu}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || {
  echo "nvcc is missing; please install the CUDA Toolkit (13.0 is the one tried) or put its nvcc on the PATH"
  exit 1
}
toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
# Some instructions of compute capability 9.0, which later ones lack, exist in code for 9.0a only.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
case $capability in
'' | 90) gencode=arch=compute_90a,code=sm_90a ;;
*) gencode=arch=compute_$capability,code=sm_$capability ;;
esac
dependencies=${MOE_MAMBA_DEPENDENCIES:-/usr/include}
include=
[ "$dependencies" = /usr/include ] || include=-I$dependencies
# Catch2 3, which may also be on the compiler's default path, needs to be linked; Catch2 2 is header-only.
catch2=
echo '#include <catch2/catch_all.hpp>' | g++ $include -x c++ -E - >/dev/null 2>&1 && catch2=-lCatch2

mkdir -p "$build" || exit 1
rm -f "$build/portable.o"
started=$(date +%s)
# The slowest to compile come first.
{
  if [ -d "$dependencies/catch2" ]; then
    for source in tests/gpu/passes/*.cu; do
      echo "$nvcc -std=c++20 -O3 -gencode=$gencode -Iinclude -Itests -c $source -o $build/passes.$(basename "$source" .cu).o"
    done
    for source in gpu/main.cpp gpu/models.cpp $(cat tests/gpu/shared_tests.txt); do
      echo "g++ -std=c++20 -O1 -DMOE_MAMBA_TEST_CUDA -Iinclude -Itests $include -I$toolkit/include" \
        "-c tests/$source -o $build/models.$(echo "$source" | tr / . | sed 's/cpp$/o/')"
    done
  fi
  echo "$nvcc -std=c++20 -O3 -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=compute_90" \
    "-Iinclude -Itests -c tests/gpu/portable/passes.cu -o $build/portable.o"
  for source in tests/gpu/*.cu; do
    echo "$nvcc -std=c++20 -O3 -gencode=$gencode -Iinclude -Itests $source -o $build/$(basename "$source" .cu) -lcublas"
  done
} | xargs -P "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)" -I {} sh -c '
  {} || echo "failed: {}"' 2>&1
rm -f "$build/models"
if [ -f "$build/models.gpu.main.o" ]; then
  "$nvcc" -gencode=$gencode "$build"/models.*.o "$build"/passes.*.o -o "$build/models" -lcublas $catch2
fi
table="built in $(($(date +%s) - started)) s for $gencode
"
status=0
outcome="compiled for 8.0 and 9.0"
[ -f "$build/portable.o" ] || status=1 outcome="does not compile"
table="$table$(printf '%-20s %4s     %s' portable "" "$outcome")
"
names=$(cd tests/gpu && ls ./*.cu | sed 's|^\./||; s|\.cu$||')
for name in $names models; do
  began=$(date +%s)
  if [ -x "$build/$name" ]; then
    "$build/$name" >"$build/$name.log" 2>&1
    code=$?
    cat "$build/$name.log"
    outcome=$(grep -v '^$' "$build/$name.log" | tail -n 1)
  elif [ "$name" = models ] && [ ! -f "$build/models.gpu.main.o" ]; then
    code=0 outcome="skipped: no Catch2 in $dependencies (MOE_MAMBA_DEPENDENCIES)"
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
