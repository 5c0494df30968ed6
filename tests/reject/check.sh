#!/bin/sh
# sh check.sh <program> <compiler> <flags>...
# The program must not compile, and the compiler's report must match each of its lines `// expect: <extended regular
# expression>`; the first of them is the sentence that a person has to see first, on the line of the first error. A program
# without such a line is a control: it must compile. A line `// flags: <flags>` adds to the flags. There
# is one error at most, since what follows from a mistake is seldom true, or as many as a line `// errors: <number>` says.
set -u
program=$1
shift
report=$(mktemp)
trap 'rm -f "$report" "$report.expected"' EXIT

# Unquoted: a word of the line is a flag.
# shellcheck disable=SC2046
LC_ALL=C "$@" $(sed -n 's|^// flags: ||p' "$program") "$program" >"$report" 2>&1
status=$?
# The namespace of the library's version stands before each name of it; what is expected has none.
sed 's/v[0-9]*_[0-9]*:://g' "$report" >"$report.names" && mv "$report.names" "$report"
sed -n 's|^// expect: ||p' "$program" >"$report.expected"

fail() {
  echo "$program: $1"
  echo "the compiler's report:"
  cat "$report"
  exit 1
}

if [ ! -s "$report.expected" ]; then
  [ $status -eq 0 ] || fail "this control must compile"
  exit 0
fi
[ $status -ne 0 ] || fail "this must not compile, and does"
while IFS= read -r expected; do
  grep -qE -e "$expected" "$report" || fail "the report does not match: $expected"
done <"$report.expected"
first_error=$(grep -m 1 'error:' "$report")
sentence=$(head -n 1 "$report.expected")
printf '%s\n' "$first_error" | grep -qE -e "$sentence" || fail "the first error is another one: $first_error"
most=$(sed -n 's|^// errors: ||p' "$program")
errors=$(grep -c 'error:' "$report")
[ "$errors" -le "${most:-1}" ] || fail "there are $errors errors; allowed: ${most:-1}"
