#!/bin/sh
# sh examples/quickstart.sh [files or folders…] [options]
# Installs missing packages (Debian, Ubuntu), builds the quickstart for this machine and runs it with the given arguments;
# --help lists them. The build folder is build-examples/ in this repository.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 1
program=quickstart

# --help is answered without building; --cuda needs the kernels for a CUDA device.
cuda=OFF
for argument in "$@"; do
  case $argument in
  --) break ;;
  --cuda) cuda=ON ;;
  --help | -h)
    sed -n '/help_text = R"(/,/^)";/{s/.*help_text = R"(//;/^)";/d;p;}' "$here/examples/quickstart/options.hpp"
    exit 0
    ;;
  esac
done

# shellcheck source=support/build.sh
. "$here/examples/support/build.sh"
install_requirements
build_example quickstart
exec "$build/examples/quickstart" "$@"
