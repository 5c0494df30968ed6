#!/bin/sh
# sh tests/fuzz/run.sh <program> <corpus> [seconds]
# Runs a fuzzing program from the kept corpus for some seconds, 10 by default. What it finds on its way goes to a temporary
# folder; an input that fails stays there, and its path is printed.
set -eu
found=$(mktemp -d)
"$1" -max_total_time="${3:-10}" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -verbosity=0 \
  -artifact_prefix="$found/failed-" "$found" "$2" || {
  echo "what fails is in $found"
  exit 1
}
rm -rf "$found"
