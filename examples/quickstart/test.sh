#!/bin/sh
# sh examples/quickstart/test.sh <program> <folder of text>
# The quickstart from end to end on little text: a run, the same run interrupted and taken up again, and bad input.
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

# The default model for a few steps, and the pair of --compare, with everything that they should leave.
"$program" "$text" --steps 4 --threads 2 --tokens 10 --out "$folder/default" || fail "a run"
for file in model.safetensors report.html; do
  [ -s "$folder/default/$file" ] || fail "no $file"
done
"$program" "$text" --steps 24 --threads 2 --tokens 40 --compare --out "$folder/whole" || fail "a comparison"
for file in model.safetensors plain.safetensors report.html loss.svg held-out.txt; do
  [ -s "$folder/whole/$file" ] || fail "no $file"
done
grep -q '<svg' "$folder/whole/report.html" || fail "no drawing in the report"

# Interrupted anywhere and taken up again, with another number of threads, it comes to the same model, bit for bit.
"$program" "$text" --steps 24 --threads 2 --tokens 40 --compare --out "$folder/parts" >"$folder/output" 2>&1 &
process=$!
waited=0
until [ -e "$folder/parts/model.checkpoint.safetensors" ] || [ $waited -eq 60 ]; do
  sleep 1
  waited=$((waited + 1))
done
kill -INT $process
wait $process || fail "an interrupted run ends with status $?"
[ ! -e "$folder/parts/model.safetensors" ] && echo "interrupted in time"
"$program" "$text" --threads 1 --tokens 40 --compare --out "$folder/parts" || fail "continuing a run"
cmp "$folder/whole/model.safetensors" "$folder/parts/model.safetensors" || fail "interrupted and not: different models"

# Bad input: a status other than 0, nothing on the standard output, one line that says what is wrong.
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
refuses "$folder/file/below" "$text" --steps 1 --out "$folder/file/below"
refuses "definition\|text\|budget" "$text" --steps 25 --compare --out "$folder/parts"
refuses "with the text" "$text/scalar.hpp" "$text" --compare --out "$folder/parts"
refuses "--steps is 0" --steps 0
refuses "--minutes is three" --minutes three
refuses "--threads" --threads
refuses "--colour" --colour
if [ -c /dev/full ] && [ "$(id -u)" -ne 0 ]; then
  mkdir "$folder/closed" && chmod 500 "$folder/closed"
  refuses "$folder/closed" "$text" --steps 1 --out "$folder/closed"
fi
# No room for a file of this size: what the system says when a disk is full comes from the same place.
refuses_big() { (
  trap '' XFSZ
  ulimit -f 100
  "$program" "$text" --steps 1 --threads 1 --out "$folder/full" >/dev/null 2>"$folder/errors" && exit 1
  exit 0
) || fail "accepted a file that is too large"; }
refuses_big
[ "$(wc -l <"$folder/errors")" -eq 1 ] || fail "not one line where a file is too large"
ls "$folder/full" | grep -q 'checkpoint' && fail "half a checkpoint was left"

[ $failures -eq 0 ] && echo "the quickstart works"
exit $failures
