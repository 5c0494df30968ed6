#!/bin/sh
# sh tests/headers/check.sh <folder> precompile <compiler> <flags>...
# sh tests/headers/check.sh <folder> <header>... -- <compiler> <flags>...
# Each header below include/ compiles alone, without a warning.
#
# Intrinsics, most of what there is to compile, come from a precompiled header in <folder>, for the headers that include
# them anyway: a header's own code stands after its includes, and each of those is checked as well, so that what comes in
# sooner hides nothing. Precompiling is the check of the header that brings them in.
set -u
cd "$(dirname "$0")/../.." || exit 1
folder=$1
shift
costly="cpu/packet.hpp"

precompiled() { # precompiled <names of costly headers>: the file that includes these
  echo "$folder/$(echo "$*" | tr '/ ' '_+').hpp"
}

if [ "$1" = precompile ]; then
  shift
  mkdir -p "$folder" || exit 1
  for names in $costly; do
    file=$(precompiled $names)
    for name in $names; do echo "#include \"moe_mamba/$name\""; done >"$file"
    "$@" -x c++-header "$file" -o "$file.gch" || exit 1
  done
  exit 0
fi

headers=""
while [ "$1" != -- ]; do
  headers="$headers $1"
  shift
done
shift

includers() { # includers <header>: the headers that include it, themselves or through others
  grep -roE '^#include "moe_mamba/[^"]*"' include | awk -F '[:"]' -v header="moe_mamba/$1" '
    { sub("^include/", "", $1); by[$3] = by[$3] " " $1 }
    END {
      queue[0] = header; seen[header] = 1
      for (next_one = 0; next_one in queue; ++next_one) {
        count = split(by[queue[next_one]], more, " ")
        for (i = 1; i <= count; ++i) if (!(more[i] in seen)) { seen[more[i]] = 1; queue[length(queue)] = more[i] }
        print queue[next_one]
      }
    }'
}
lists=$(mktemp -d) || exit 1
trap 'rm -rf "$lists"' EXIT
for name in $costly; do includers "$name" >"$lists/$(echo "$name" | tr / _)"; done

status=0
for header in $headers; do
  names=""
  for name in $costly; do
    grep -qxF "$header" "$lists/$(echo "$name" | tr / _)" && names="$names $name"
  done
  if [ -n "$names" ]; then
    "$@" -include "$(precompiled $names)" -include "$header" -x c++ /dev/null
  else
    "$@" -include "$header" -x c++ /dev/null
  fi || {
    echo "$header does not compile alone"
    status=1
  }
done
exit $status
