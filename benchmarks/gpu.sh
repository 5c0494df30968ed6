#!/bin/sh
# sh benchmarks/gpu.sh [build folder]
# Builds the CUDA benchmarks with nvcc and runs them, together with the device's ceilings, measured in the same run. Needs a
# device of compute capability 9.0 (H100, H200), the CUDA Toolkit and g++. The build folder is build-gpu/ by default.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build-gpu}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
gencode=arch=compute_90a,code=sm_90a
mkdir -p "$build"
# The slowest to compile come first.
{
  for source in benchmarks/gpu/models/*.cu; do
    echo "$nvcc -std=c++20 -O3 -gencode=$gencode -Iinclude -Ibenchmarks -c $source" \
      "-o $build/benchmark.models.$(basename "$source" .cu).o"
  done
  for source in benchmarks/gpu/*.cu; do
    echo "$nvcc -std=c++20 -O3 -gencode=$gencode -Iinclude -Itests -Ibenchmarks $source" \
      "-o $build/benchmark.$(basename "$source" .cu) -lcublas"
  done
  echo "g++ -std=c++20 -O2 -Iinclude -Ibenchmarks -I$toolkit/include -c benchmarks/gpu/models/main.cpp" \
    "-o $build/benchmark.models.main.o"
} | xargs -P "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)" -I {} sh -c '{}'
"$nvcc" -gencode=$gencode "$build"/benchmark.models.*.o -o "$build/benchmark.models" -lcublas
for name in models $(cd benchmarks/gpu && ls ./*.cu | sed 's|^\./||; s|\.cu$||'); do
  printf '\n%s\n' "$name"
  "$build/benchmark.$name"
done
