#!/bin/sh
# sh benchmarks/gpu.sh [build folder]
# Builds the benchmarks of the CUDA operations with nvcc and runs them, beside ceilings taken in the same run. Needs a device
# of compute capability 9.0 (H100, H200) and the CUDA Toolkit. The build folder is build-gpu/ by default.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build-gpu}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
mkdir -p "$build"
ls benchmarks/gpu/*.cu | xargs -P "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)" -I {} sh -c '
  "$2" -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -Iinclude -Itests -Ibenchmarks "$1" \
    -o "$3/benchmark.$(basename "$1" .cu)" -lcublas' - {} "$nvcc" "$build"
for source in benchmarks/gpu/*.cu; do
  name=$(basename "$source" .cu)
  printf '\n%s\n' "$name"
  "$build/benchmark.$name"
done
