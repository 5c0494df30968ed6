#!/bin/sh
# sh check.sh <program> <compiler> <flags>...
# Checks that a program does not compile, and that the compiler's report matches each of its lines
# `// expect: <extended regular expression>`. The first of them is the message that must be the first error. A program without
# such a line is a control: it must compile. A line `// flags: <flags>` adds flags. There may be one error only, since follow-up
# errors mislead, or as many as a line `// errors: <number>` allows.
set -u
program=$1
shift
report=$(mktemp)
trap 'rm -f "$report" "$report.expected"' EXIT

# Unquoted: the line is split into flags.
# shellcheck disable=SC2046
LC_ALL=C "$@" $(sed -n 's|^// flags: ||p' "$program") "$program" >"$report" 2>&1
status=$?
# Expected messages leave out the inline namespace of the library's version.
sed 's/v[0-9]*_[0-9]*:://g' "$report" >"$report.names" && mv "$report.names" "$report"
sed -n 's|^// expect: ||p' "$program" >"$report.expected"

fail() {
  echo "$program: $1"
  echo "the compiler's report:"
  cat "$report"
  exit 1
}

if [ ! -s "$report.expected" ]; then
  [ $status -eq 0 ] || fail "does not compile, but must, as it expects no error"
  exit 0
fi
[ $status -ne 0 ] || fail "compiles, but must not"
while IFS= read -r expected; do
  grep -qE -e "$expected" "$report" || fail "the report does not match: $expected"
done <"$report.expected"
first_error=$(grep -m 1 'error:' "$report")
sentence=$(head -n 1 "$report.expected")
printf '%s\n' "$first_error" | grep -qE -e "$sentence" || fail "the first error does not match $sentence: $first_error"
most=$(sed -n 's|^// errors: ||p' "$program")
errors=$(grep -c 'error:' "$report")
[ "$errors" -le "${most:-1}" ] || fail "there are $errors errors; allowed: ${most:-1}"
