#!/bin/sh
# sh tests/style/check.sh <check> [compiler flags]
#   format   clang-format 14 would change nothing
#   words    no unfinished work, no file without end
#   rooms    includes go one way: core <- ops <- layers <- model <- train | generate <- io <- families; cpu and cuda know core
#            and ops; core <- text; io, text <- tokenizers
#   tidy     clang-tidy finds nothing in a file that includes everything
# Exits with 77 where the tool is missing.
set -u
cd "$(dirname "$0")/../.." || exit 1
check=$1
shift
code_folders="include tests examples benchmarks"
failures=0

complain() {
  echo "$1"
  failures=$((failures + 1))
}

code() { # every file of C++, one a line
  find $code_folders \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu' \) | sort
}

case $check in
format)
  for tool in clang-format-14 clang-format; do
    if $tool --version 2>/dev/null | grep -q 'version 14\.'; then
      code | xargs $tool --dry-run -Werror && exit 0
      echo "to put this right: find $code_folders -name '*.[hc]pp' -o -name '*.cu*' | xargs $tool -i"
      exit 1
    fi
  done
  echo "skipped: no clang-format 14"
  exit 77
  ;;
words)
  # The brackets keep these lines from finding themselves.
  grep -rnE 'T[O]DO|F[I]XME' --exclude-dir=.git --exclude-dir='build*' . && complain "words of unfinished work"
  grep -rniE 's[t]ub|p[l]aceholder' --exclude-dir=.git --exclude-dir='build*' . && complain "words of unfinished work"
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
    grep -rnE '#include "moe_mamba/' "include/moe_mamba/$room" | grep -vE "\"moe_mamba/($others)/" &&
      complain "$room may include $* only"
  }
  allow core core
  allow ops core ops
  allow cpu core ops cpu
  allow cuda core ops cuda
  allow layers core ops layers
  allow model core ops layers model
  allow train core ops layers model cpu train
  allow generate core ops layers model cpu generate
  allow text core text
  allow tokenizers core io text tokenizers
  allow io core ops layers model cpu train generate io
  allow families core ops layers model generate io families
  grep -rnE '#include *<(Eigen|unsupported)/' include | grep -v '^include/moe_mamba/cpu/' && complain "Eigen lives in cpu only"
  grep -rnE '#include *<utf8proc' include | grep -v '^include/moe_mamba/tokenizers/unicode.hpp' &&
    complain "utf8proc lives in tokenizers/unicode.hpp only"
  grep -rLE '^#pragma once' include --include='*.hpp' --include='*.cuh' | grep . && complain "a header without #pragma once"
  for file in $(grep -rLE '^#include "moe_mamba/' include --include='*.hpp' | grep -vE '/(version|core/standard)\.hpp$'); do
    complain "$file lets older standards pass: it must include moe_mamba/core/standard.hpp, itself or by another header"
  done
  grep -rnE '#include *<cu' include | grep -v '^include/moe_mamba/cuda/' && complain "CUDA lives in cuda only"
  grep -rnE '#include *<cub/cub.cuh>' include tests && complain "<cub/cub.cuh> takes 8 seconds to compile"
  grep -rnE '#include *<iostream>' include && complain "<iostream> brings a global object into every file"
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
