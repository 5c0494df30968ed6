#!/bin/sh
# sh tests/style/check.sh <check> [compiler flags]
#   format   clang-format 14 would change nothing
#   words    no unfinished work, no file without end
#   rooms    includes go one way: core <- ops <- layers <- model <- train | generate <- io <- families; cpu and cuda know core
#            and ops; core <- text; io, text <- tokenizers
#   tidy     clang-tidy finds nothing in a file that includes everything
# Only the repository's own files are read, never what a build or a run has left beside them: those that git tracks, or,
# where there is no git, those outside the folders that .gitignore names. Exits with 77 where the tool is missing.
set -u
cd "$(dirname "$0")/../.." || exit 1
check=$1
shift
failures=0

complain() {
  echo "$1"
  failures=$((failures + 1))
}

tracked=$(git ls-files 2>/dev/null)
files() { # files [extended regular expression]: the repository's files whose paths match it, one a line
  if [ -n "$tracked" ]; then
    printf '%s\n' "$tracked" | grep -E -e "${1:-.}" | while IFS= read -r file; do
      if [ -f "$file" ]; then printf '%s\n' "$file"; fi # and not removed since
    done
  else
    find . \( -path './build*' -o -path ./quickstart-run -o -path ./out -o -path ./.cache -o -path ./.git \
      -o -name __pycache__ \) -prune -o -type f ! -name compile_commands.json -print |
      sed 's|^\./||' | grep -E -e "${1:-.}"
  fi | sort
}
code() { files '\.([ch]pp|cuh?)$'; } # every file of C++

# search <paths> <options and pattern for grep>...: the matches in those of the repository's files, as path:line:text
search() {
  paths=$1
  shift
  files "$paths" | tr '\n' '\0' | xargs -0 grep -nHE "$@"
}

case $check in
format)
  for tool in clang-format-14 clang-format; do
    if $tool --version 2>/dev/null | grep -q 'version 14\.'; then
      code | xargs $tool --dry-run -Werror && exit 0
      echo "to put this right: $tool -i <the files above>"
      exit 1
    fi
  done
  echo "skipped: no clang-format 14"
  exit 77
  ;;
words)
  # The brackets keep these lines from finding themselves.
  search . 'T[O]DO|F[I]XME' && complain "words of unfinished work"
  search . -i 's[t]ub|p[l]aceholder' && complain "words of unfinished work"
  for file in $(code); do
    lines=$(wc -l <"$file")
    [ "$lines" -le 500 ] || complain "$file has $lines lines; allowed: 500"
  done
  ;;
rooms)
  # allow <room> <rooms it may include>...
  allow() {
    room=$1
    shift
    others=$(echo "$@" | tr ' ' '|')
    search "^include/moe_mamba/$room/" '#include "moe_mamba/' | grep -vE "\"moe_mamba/($others)/" &&
      complain "$room may include $* only"
  }
  allow core core
  allow ops core ops
  allow cpu core ops cpu
  allow cuda core ops cuda
  allow layers core ops layers
  allow model core ops layers model
  allow language core ops layers model language
  allow train core ops layers model train
  allow generate core ops layers model generate
  allow text core text
  allow tokenizers core io text tokenizers
  allow io core ops layers model language train generate io
  allow families core ops layers model language generate io families
  search ^include/ '#include *<(immintrin|arm_neon)' | grep -v '^include/moe_mamba/cpu/native_vector.hpp' &&
    complain "intrinsics live in cpu/native_vector.hpp only"
  search ^include/ '#include *<utf8proc' | grep -v '^include/moe_mamba/tokenizers/unicode.hpp' &&
    complain "utf8proc lives in tokenizers/unicode.hpp only"
  files '^include/.*\.(hpp|cuh)$' | grep -v '^include/moe_mamba/core/standard.hpp' | xargs grep -L '^#include "moe_mamba/' |
    grep . && complain "every header comes to core/standard.hpp first: includes that, or another header of ours"
  files '^include/.*\.(hpp|cuh)$' | xargs grep -LE '^#pragma once' | grep . && complain "a header without #pragma once"
  search ^include/ '#include *<cu' | grep -v '^include/moe_mamba/cuda/' && complain "CUDA lives in cuda only"
  search '^(include|tests)/' '#include *<cub/cub.cuh>' && complain "<cub/cub.cuh> takes 8 seconds to compile"
  search ^include/ '#include *<iostream>' && complain "<iostream> brings a global object into every file"
  ;;
tidy)
  command -v clang-tidy >/dev/null || {
    echo "skipped: no clang-tidy"
    exit 77
  }
  clang-tidy --quiet --warnings-as-errors='*' tests/style/everything.cpp -- "$@" || complain "clang-tidy has findings"
  ;;
*)
  complain "the check is '$check'; allowed: format, words, rooms, tidy"
  ;;
esac
[ $failures -eq 0 ]
