#!/bin/sh
# sh examples/mechanism/test.sh <program>
# The small tasks, which both Mambas solve; runs taken up again, to the same bits; an interrupted run; bad input.
set -u
program=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

"$program" --small --threads 2 --out "$folder/whole" || fail "a run"
file=$folder/whole/mechanism.csv
[ "$(wc -l <"$file")" -eq 19 ] || fail "not a line for the head and for each of 2 tasks, 3 systems and 3 lengths"
solved() { # solved <task> <system> <test length> <least accuracy>
  awk -F , -v task="$1" -v name="$2" -v length_="$3" -v least="$4" \
    '$1 == task && $2 == name && $7 == length_ && $8 >= least { found = 1 } END { exit !found }' "$file" ||
    fail "$2 does not solve $1 at length $3"
}
for system in Mamba MoE-Mamba; do
  solved selective-copying $system 32 0.99
  solved induction-heads $system 32 0.99
  solved induction-heads $system 64 0.99
done

# Only what is missing is done again, to the same file on one thread; rows of other seeds stay.
other=induction-heads,Mamba,1,32,1,7,32,0.500000,512
mkdir "$folder/parts"
grep -v induction-heads,MoE-Mamba "$file" >"$folder/parts/mechanism.csv"
echo "$other" >>"$folder/parts/mechanism.csv"
"$program" --small --threads 1 --out "$folder/parts" >"$folder/output" || fail "taking up a run"
[ "$(grep -c 'done before' "$folder/output")" -eq 5 ] || fail "does not know what was done before"
grep -v "$other" "$folder/parts/mechanism.csv" | cmp - "$file" || fail "other results in two visits"
grep -q "$other" "$folder/parts/mechanism.csv" || fail "lost a row of another seed"

# Interrupted, it ends well and leaves a whole file.
"$program" --out "$folder/interrupted" >"$folder/output" 2>&1 &
process=$!
waited=0
until [ -e "$folder/interrupted/mechanism.csv" ] || [ $waited -eq 60 ]; do
  sleep 1
  waited=$((waited + 1))
done
kill -INT $process
wait $process || fail "an interrupted run ends with status $?"
grep -q '^interrupted' "$folder/output" || fail "does not say that it was interrupted"
head -1 "$file" | cmp - "$folder/interrupted/mechanism.csv" || fail "rows of a run that was not finished"

# Bad input: a status other than 0, nothing on the standard output, one line that says what is wrong.
refuses() {
  said=$1
  shift
  "$program" "$@" >"$folder/output" 2>"$folder/errors" && fail "accepted: $*"
  [ -s "$folder/output" ] && fail "wrote to the standard output: $*"
  [ "$(wc -l <"$folder/errors")" -eq 1 ] || fail "not one line for: $*"
  grep -q -- "$said" "$folder/errors" || fail "'$(cat "$folder/errors")' does not say '$said'"
}
touch "$folder/file"
refuses "$folder/file/below" --small --out "$folder/file/below"
mkdir "$folder/other" && echo "something else" >"$folder/other/mechanism.csv"
refuses "other/mechanism.csv, line 1: the first line is something else" --small --out "$folder/other"
head -1 "$file" >"$folder/other/mechanism.csv" && echo "copying,Mamba,1,2,3,4,5,0.5,6" >>"$folder/other/mechanism.csv"
refuses "other/mechanism.csv, line 2: task is copying" --small --out "$folder/other"
refuses "--tasks is copying" --tasks copying
refuses "--tasks is empty" --tasks induction-heads,
refuses "--longest is 300" --longest 300
refuses "--threads is 0" --threads 0
refuses "--seed" --seed -1
refuses "--small is yes" --small=yes
refuses "--out" --out
refuses "the option is --colour" --colour
refuses "the option is text" text

[ $failures -eq 0 ] && echo "the mechanism works"
exit $failures
