#!/bin/sh
# sh benchmarks/run.sh [build folder] [options]
# Builds the benchmarks for this machine and runs them. Prints a table and writes <build folder>/results.json, then
# measures how long the library takes to compile. The build folder is build-benchmarks/ by default. Options (see
# docs/benchmarks.md): --quick, --only GROUP (skips the compile cost), --threads COUNT, --processor-time, --json FILE.
set -eu
cd "$(dirname "$0")/.."
build=build-benchmarks
case ${1:---} in
-*) ;;
*)
  build=$1
  shift
  ;;
esac

for tool in cmake c++; do
  command -v $tool >/dev/null 2>&1 || {
    echo "$tool is missing. sh tests/run.sh installs what is needed on Debian and Ubuntu; elsewhere please install"
    echo "a C++20 compiler (g++ 12, clang 14 or newer) and CMake 3.22 or newer."
    exit 1
  }
done

cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DMOE_MAMBA_NATIVE=ON -DMOE_MAMBA_BUILD_BENCHMARKS=ON \
  -DMOE_MAMBA_BUILD_TESTS=OFF -DMOE_MAMBA_BUILD_EXAMPLES=OFF >"$build.log" 2>&1 || {
  cat "$build.log"
  exit 1
}
rm -f "$build.log"
cmake --build "$build" --target benchmarks -j "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)"

"$build/benchmarks/benchmarks" --json "$build/results.json" "$@"

compile_cost=yes repeats=3
for argument in "$@"; do
  case $argument in
  --quick) repeats=1 ;;
  --only) compile_cost=no ;;
  esac
done
if [ $compile_cost = yes ]; then sh benchmarks/compile_cost.sh "$build" $repeats; fi
