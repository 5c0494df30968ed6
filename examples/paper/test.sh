#!/bin/sh
# sh examples/paper/test.sh <program> <folder of text>
# The comparison from end to end on little text: a run, the same run interrupted and continued, and bad input.
set -u
program=$1
text=$2
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

"$program" "$text" --steps 20 --seeds 2 --threads 2 --out "$folder/whole" >"$folder/output" || fail "a run"
for run in mamba.seed-1 mamba.seed-2 moe-mamba.seed-1 moe-mamba.seed-2 mamba-mlp.seed-1; do
  [ -s "$folder/whole/runs/$run.csv" ] || fail "no curve of $run"
done
[ -s "$folder/whole/runs/moe-mamba.seed-1.experts.csv" ] || fail "no choices of experts"
grep -q '<svg' "$folder/whole/paper.html" || fail "no chart in the page"
ls "$folder"/whole/runs/*checkpoint* >/dev/null 2>&1 && fail "checkpoints of finished runs were left"

# Interrupted anywhere and continued with another number of threads: the same curves but for times.
"$program" "$text" --steps 20 --seeds 2 --threads 2 --out "$folder/parts" >"$folder/output" 2>&1 &
process=$!
waited=0
until [ -e "$folder/parts/runs/moe-mamba.seed-1.experts.csv" ] || [ $waited -eq 60 ]; do
  sleep 1
  waited=$((waited + 1))
done
kill -INT $process
wait $process || fail "an interrupted comparison ends with status $?"
"$program" "$text" --steps 20 --seeds 2 --threads 1 --out "$folder/parts" >"$folder/output" || fail "continuing"
for file in "$folder"/whole/runs/*.csv; do
  name=$(basename "$file")
  for side in whole parts; do
    case $name in
    *.experts.csv) cp "$folder/$side/runs/$name" "$folder/$side.lines" ;;
    *) awk -F, '/^[0-9]/ { $2 = "" } { print }' "$folder/$side/runs/$name" >"$folder/$side.lines" ;;
    esac
  done
  cmp -s "$folder/whole.lines" "$folder/parts.lines" || fail "interrupted and not: different curves of $name"
done

# Bad input: a status other than 0, one line that says what is wrong.
refuses() {
  said=$1
  shift
  "$program" "$@" >"$folder/output" 2>"$folder/errors" && fail "accepted: $*"
  [ "$(wc -l <"$folder/errors")" -eq 1 ] || fail "not one line for: $*"
  grep -q -- "$said" "$folder/errors" || fail "'$(cat "$folder/errors")' does not say '$said'"
}
printf 'too short' >"$folder/short.txt"
touch "$folder/file"
refuses "nowhere" "$folder/nowhere" --out "$folder/other"
refuses "bytes or more" "$folder/short.txt" --out "$folder/other"
refuses "$folder/file/below" "$text" --steps 20 --out "$folder/file/below"
refuses "20 steps" "$text" --steps 25 --out "$folder/parts"
refuses "use --fresh" "$text" "$program" "$0" --steps 20 --out "$folder/parts"
refuses "--steps is 0" --steps 0
refuses "--cuda" "$text" --cuda --out "$folder/other"
refuses "--full" "$text" --full --out "$folder/other"
refuses "--colour" --colour

[ $failures -eq 0 ] && echo "the comparison works"
exit $failures
