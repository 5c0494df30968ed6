#!/bin/sh
# sh tests/slow.sh [build folder] [lines]
# Lists what took longest to compile and to run in a build folder (build/ by default), in seconds.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
lines=${2:-15}
[ -f "$build/.ninja_log" ] || {
  echo "$build/.ninja_log is missing; the folder must have been built by Ninja"
  exit 1
}
echo "compiled or linked:"
awk -F '\t' '!/^#/ { seconds[$4] = ($2 - $1) / 1000 } END { for (file in seconds) printf "%8.1f  %s\n", seconds[file], file }' \
  "$build/.ninja_log" | sort -rn | head -n "$lines"
costs=$build/Testing/Temporary/CTestCostData.txt
[ -f "$costs" ] || exit 0
echo "run, on average:"
awk 'NF == 3 { printf "%8.1f  %s\n", $3, $1 }' "$costs" | sort -rn | head -n "$lines"
