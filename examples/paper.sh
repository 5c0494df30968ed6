#!/bin/sh
# sh examples/paper.sh [files or folders…] [options]
# Installs missing packages (Debian, Ubuntu), builds the comparison for this machine and runs it with the given arguments;
# --help lists them. The build folder is build-examples/ in this repository.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 1
program=paper

# --help is answered without building; what is built follows from the arguments.
cuda=OFF
target=paper
how_long="a minute or two"
for argument in "$@"; do
  case $argument in
  --) break ;;
  --cuda) cuda=ON target=paper_cuda how_long="some minutes" ;;
  --hours | --hours=*) [ $target = paper ] && target=paper_more how_long="some minutes" ;;
  --mechanism) target=mechanism ;;
  --help | -h)
    sed -n '/help_text = R"(/,/^)";/{s/.*help_text = R"(//;/^)";/d;p;}' "$here/examples/paper/options.hpp"
    exit 0
    ;;
  esac
done

# shellcheck source=support/build.sh
. "$here/examples/support/build.sh"
install_requirements
build_example $target "$how_long"
if [ $target = mechanism ]; then
  # The other arguments are that program's own.
  for argument in "$@"; do
    shift
    [ "$argument" = --mechanism ] || set -- "$@" "$argument"
  done
fi
exec "$build/examples/$target" "$@"
