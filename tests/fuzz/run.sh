#!/bin/sh
# sh tests/fuzz/run.sh <program> <corpus> [seconds]
# Runs a fuzzer for some seconds (10 by default), starting from a corpus. New inputs go to a temporary folder; if one fails, the
# folder is kept and its path is printed.
set -eu
found=$(mktemp -d)
"$1" -max_total_time="${3:-10}" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -verbosity=0 \
  -artifact_prefix="$found/failed-" "$found" "$2" || {
  echo "the failing input is in $found"
  exit 1
}
rm -rf "$found"
