#!/bin/sh
# sh tests/style/check.sh <check> [compiler flags]
#   format   clang-format 14 would change nothing
#   words    no markers of unfinished work, no file over 400 lines
#   rooms    every include is allowed by the table of docs/architecture.md, which has no cycle
#   tidy     clang-tidy finds nothing in a file that includes everything
# Reads the repository's own files only, not what builds or runs have left among them: the files that git tracks or, without
# git, those outside the folders that .gitignore lists. Exits with 77 if the tool is missing.
set -u
cd "$(dirname "$0")/../.." || exit 1
check=$1
shift
failures=0

complain() {
  echo "$*"
  failures=$((failures + 1))
}

tracked=$(git ls-files 2>/dev/null)
files() { # files [extended regular expression]: the repository's files whose paths match it, one a line
  if [ -n "$tracked" ]; then
    printf '%s\n' "$tracked" | grep -E -e "${1:-.}" | while IFS= read -r file; do
      if [ -f "$file" ]; then printf '%s\n' "$file"; fi # unless removed since
    done
  else
    find . \( -path './build*' -o -path ./quickstart-run -o -path ./paper-run -o -path ./out -o -path ./.cache -o -path ./.git \
      -o -name __pycache__ \) -prune -o -type f ! -name compile_commands.json -print |
      sed 's|^\./||' | grep -E -e "${1:-.}"
  fi | sort
}
code() { files '\.([ch]pp|cuh?)$'; } # the C++ and CUDA files

# search <paths> <options and pattern for grep>...: the matches in those of the repository's files, as path:line:text
search() {
  paths=$1
  shift
  files "$paths" | tr '\n' '\0' | xargs -0 grep -nHE "$@"
}

case $check in
format)
  list=$(mktemp) || exit 1
  trap 'rm -f "$list"' EXIT
  for tool in clang-format-14 clang-format; do
    if $tool --version 2>/dev/null | grep -q 'version 14\.'; then
      # Without --dry-run, with which version 14 reports the end of every `namespace a::inline b`.
      code | xargs -P 2 -n 20 sh -c 'for file; do '$tool' "$file" | cmp -s - "$file" || echo "$file"; done' sh >"$list"
      [ -s "$list" ] || exit 0
      cat "$list"
      echo "to format them: $tool -i <the files above>"
      exit 1
    fi
  done
  echo "skipped: no clang-format 14"
  exit 77
  ;;
words)
  # The brackets keep these lines from finding themselves.
  search . 'T[O]DO|F[I]XME' && complain "marked as unfinished"
  search . -i 's[t]ub|p[l]aceholder' && complain "marked as unfinished"
  for file in $(code); do
    lines=$(wc -l <"$file")
    [ "$lines" -le 400 ] || complain "$file has $lines lines; allowed: 400"
  done
  ;;
rooms)
  # docs/architecture.md has a row for every room: | `room/` | what it may include besides itself | … |
  arrows=$(sed -n 's/^| `\([a-z_]*\)\/` | *\([a-z_, ]*\)|.*/\1 \2/p' docs/architecture.md | tr -d ,)
  stated=$(printf '%s\n' "$arrows" | cut -d ' ' -f 1 | sort)
  rooms=$(files '^include/moe_mamba/[^/]+/' | cut -d / -f 3 | sort -u)
  [ "$stated" = "$rooms" ] || complain "the rooms of docs/architecture.md are" $stated "and those of include/moe_mamba" $rooms
  above=
  while read -r room included; do
    for other in $included; do
      case " $above " in
      *" $other "*) ;;
      *) complain "docs/architecture.md: $room may include $other, which is not in a row above" ;;
      esac
    done
    others=$(echo $room $included | tr ' ' '|')
    search "^include/moe_mamba/$room/" '#include "moe_mamba/' | grep -vE "\"moe_mamba/($others)/" &&
      complain "$room may include $room $included only, says docs/architecture.md"
    above="$above $room"
  done <<EOF
$arrows
EOF
  search ^include/moe_mamba/cuda/common/ '#include "moe_mamba/' | grep -vE '"moe_mamba/(core/|cuda/(common/|check\.hpp|device\.hpp))' &&
    complain "cuda/common may include core, cuda/common and the device only"
  # The calls from a training step to a kernel that the page lists must exist.
  hops=$(sed -n 's/^| [0-9]* | `\([^`]*\)` | `\([^`]*\)` | `*\([^`|]*\)`* *|$/\1 \2 \3/p' docs/architecture.md)
  [ "$(printf '%s\n' "$hops" | wc -l)" = 10 ] || complain "docs/architecture.md does not show ten hops"
  while read -r function file called; do
    grep -q "${function##*::}(" "include/moe_mamba/$file" || complain "docs/architecture.md: $function is not in $file"
    case $function in
    *::*) grep -qE "(class|struct) ${function%%::*}\b" "include/moe_mamba/$file" || complain "docs/architecture.md: $file has no ${function%%::*}" ;;
    esac
    [ -z "$called" ] || grep -q "$called(" "include/moe_mamba/$file" || complain "docs/architecture.md: $file does not call $called"
  done <<EOF
$hops
EOF
  search ^include/ '#include *<(Eigen|unsupported)/' | grep -v '^include/moe_mamba/eigen.hpp' && complain "Eigen may be included in eigen.hpp only"
  search ^include/ '#include *<(immintrin|arm_neon)' | grep -v '^include/moe_mamba/cpu/native_vector.hpp' &&
    complain "intrinsics may be included in cpu/native_vector.hpp only"
  search ^include/ '#include *<utf8proc' | grep -v '^include/moe_mamba/tokenizers/unicode.hpp' &&
    complain "utf8proc may be included in tokenizers/unicode.hpp only"
  files '^include/.*\.(hpp|cuh)$' | grep -v '^include/moe_mamba/core/standard.hpp' | xargs grep -L '^#include "moe_mamba/' |
    grep . && complain "a header that does not include core/standard.hpp or another of the library's headers"
  files '^include/.*\.(hpp|cuh)$' | xargs grep -LE '^#pragma once' | grep . && complain "a header without #pragma once"
  search ^include/ '#include *<cu' | grep -v '^include/moe_mamba/cuda/' && complain "CUDA headers may be included in cuda only"
  search '^(include|tests)/' '#include *<cub/cub.cuh>' && complain "<cub/cub.cuh> takes 8 seconds to compile"
  search ^include/ '#include *<iostream>' && complain "<iostream> adds a global object to every file"
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
