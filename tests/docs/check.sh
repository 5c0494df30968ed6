#!/bin/sh
# sh tests/docs/check.sh <compiler> <flags>...
# Every C++ snippet in README.md and docs/ must compile: one with a main() as it is, others after context.hpp, those
# that begin with a struct in a namespace of their own and the rest in the body of a function.
set -u
cd "$(dirname "$0")/../.." || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

utf8proc=$(echo '#include <utf8proc.h>' | "$1" -E -x c++ - >/dev/null 2>&1 && echo yes || echo no)
for page in README.md docs/*.md; do
  # Its code needs utf8proc.
  if [ "$page" = docs/tokenizers.md ] && [ $utf8proc = no ]; then continue; fi
  awk -v name="$folder/$(basename "$page" .md)" '
    /^ *```cpp$/ { inside = 1; match($0, /^ */); indent = RLENGTH; file = sprintf("%s-%02d.txt", name, ++count); next }
    /^ *```$/ { inside = 0 }
    inside { print substr($0, indent + 1) > file }' "$page"
done

failures=0
pieces=0
compile() { # compile <flags and file>...
  "$compiler" "$@" >"$folder/report" 2>&1 || {
    echo "$program does not compile:"
    cat "$program" "$folder/report"
    failures=$((failures + 1))
  }
}

compiler=$1
shift
all=$folder/all.cpp
without_cuda=
echo '#include <cuda_runtime.h>' >"$folder/cuda.cpp"
"$compiler" "$@" "$folder/cuda.cpp" 2>/dev/null || without_cuda=1
echo '#include "tests/docs/context.hpp"' >"$all"
for piece in "$folder"/*.txt; do
  pieces=$((pieces + 1))
  name=$(basename "$piece" .txt)
  # These need the CUDA Toolkit's headers.
  grep -q 'include <moe_mamba/cuda' "$piece" && [ -n "$without_cuda" ] && continue
  if grep -q '^int main' "$piece"; then
    program=$folder/$name.cpp
    cp "$piece" "$program"
    compile "$@" "$program"
  else
    identifier=$(echo "$name" | tr -- - _)
    {
      if grep -q '^struct' "$piece"; then echo "namespace $identifier {"; else echo "void $identifier() {"; fi
      echo "#line 1 \"$name\""
      cat "$piece"
      echo "}"
    } >>"$all"
  fi
done
program=$all
compile "$@" -I. "$program"
[ $pieces -ge 8 ] || {
  echo "only $pieces pieces of code were found"
  failures=$((failures + 1))
}
[ $failures -eq 0 ]
