#!/bin/sh
# sh benchmarks/compile_cost.sh [build folder] [repeats]
# Measures the CPU seconds and the peak memory that it takes to compile (-O2) a file that only includes Eigen, and a program
# that trains a model and generates from it, with 2 and with 48 repeats of its blocks, which must cost the same. Uses g++ and
# clang++, whichever are installed. Prints medians of 3 compilations and writes them to <build folder>/compile_cost.json.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build-benchmarks}
repeats=${2:-3}
mkdir -p "$build/compile_cost"
measure=$build/compile_cost/measure
c++ -std=c++20 -O1 -o "$measure" benchmarks/compile_cost/measure.cpp

eigen=/usr/include/eigen3
for folder in /usr/include/eigen3 /usr/local/include/eigen3 /opt/homebrew/include/eigen3 "$build/_deps/eigen-src"; do
  if [ -e "$folder/Eigen/Dense" ]; then
    eigen=$folder
    break
  fi
done
flags="-std=c++20 -O2 -Iinclude -isystem $eigen -c"

echo
echo "compile-cost: CPU seconds and peak memory to compile, medians of $repeats"
results=""
for compiler in g++ clang++; do
  command -v $compiler >/dev/null 2>&1 || continue
  for case in "Eigen/Dense alone:eigen" "quickstart, 2 repeats:quickstart -DREPEATS=2" \
    "quickstart, 48 repeats:quickstart -DREPEATS=48"; do
    name=${case%%:*}
    set -- ${case#*:}
    file=$1
    shift
    figures=$("$measure" "$repeats" $compiler $flags "$@" "benchmarks/compile_cost/$file.cpp" -o "$build/compile_cost/$file.o")
    set -- $figures
    printf '  %-8s %-24s %8s s %6s MiB\n' $compiler "$name" "$1" "$2"
    results="$results${results:+,}
 {\"compiler\": \"$compiler\", \"name\": \"$name\", \"seconds\": $1, \"mebibytes\": $2}"
  done
done
printf '[%s\n]\n' "$results" >"$build/compile_cost.json"
