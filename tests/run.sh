#!/bin/sh
# sh tests/run.sh [build folder]
# Installs what is missing (Debian, Ubuntu), builds everything, runs all tests, and those of code that handles memory a
# second time under the address and undefined-behaviour sanitizers. The build folder is build/ by default; the sanitizers'
# is <folder>-sanitize.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

have() { command -v "$1" >/dev/null 2>&1; }
have_header() { [ -e "/usr/include/$1" ] || [ -e "/usr/local/include/$1" ]; }

# What the tests cannot do without, and what they skip checks without.
missing=""
have c++ || have g++ || have clang++ || missing="$missing g++"
have cmake || missing="$missing cmake"
have ninja || missing="$missing ninja-build"
have_header catch2/catch.hpp || have_header catch2/catch_all.hpp || missing="$missing catch2"
optional=""
have_header eigen3/Eigen/Core || optional="$optional libeigen3-dev"
have_header nlohmann/json.hpp || optional="$optional nlohmann-json3-dev"
have g++ || optional="$optional g++"
have clang++ || optional="$optional clang"
have_header utf8proc.h || optional="$optional libutf8proc-dev"
have clang-format-14 || optional="$optional clang-format-14"
have clang-tidy || optional="$optional clang-tidy"

if [ -n "$missing$optional" ]; then
  if have apt-get; then
    sudo=""
    if [ "$(id -u)" -ne 0 ]; then
      have sudo && sudo=sudo
    fi
    apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@" >/dev/null; }
    echo "installing:$missing$optional"
    $sudo apt-get -q update >/dev/null || echo "apt-get update failed"
    [ -z "$missing" ] || apt $missing || {
      echo "could not install:$missing. Install these packages and run this again."
      exit 1
    }
    for package in $optional; do
      apt "$package" || echo "could not install $package: the tests that need it are left out"
    done
  elif [ -n "$missing" ]; then
    echo "These are missing; Debian and Ubuntu call them:$missing"
    echo "Please install: a C++20 compiler (g++ 12, clang 14 or newer), CMake 3.22 or newer, Ninja, Catch2 (2.13 or 3)."
    have cmake && have ninja || exit 1
    echo "CMake will download Catch2 if it does not find it."
  fi
fi

launcher=""
if have ccache; then launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"; fi
werror=OFF # a compiler that we have not seen may warn of something new; our own machines have to be clean
if [ -n "${CI:-}" ]; then werror=ON; fi

summary=""
status=0
# step <name> <command>...: run it, say how long it took, remember whether it failed
step() {
  name=$1
  shift
  started=$(date +%s)
  if "$@"; then outcome=passed; else
    outcome=FAILED
    status=1
  fi
  summary="$summary$(printf '%-32s %s, %d s' "$name" "$outcome" $(($(date +%s) - started)))
"
}

# suite <folder> <name> <target> <words for ctest> <arguments for cmake>...
suite() {
  folder=$1 name=$2 target=$3 selection=$4
  shift 4
  cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMOE_MAMBA_WERROR=$werror \
    -DMOE_MAMBA_TESTS_TOGETHER=ON $launcher "$@" || {
    echo "could not configure $folder"
    exit 1
  }
  step "$name: build" cmake --build "$folder" --target "$target" -j "$jobs" -- -k 0
  step "$name: tests" ctest --test-dir "$folder" --output-on-failure -j "$jobs" $selection
}

# Not for this machine's processor, so that the kernels' plainest form (SSE2, on x86) is tested as well.
suite "$build-sanitize" "sanitizers" sanitized_tests "-L sanitized" "-DMOE_MAMBA_SANITIZE=address;undefined" \
  -DMOE_MAMBA_NATIVE=OFF -DMOE_MAMBA_BUILD_EXAMPLES=OFF -DMOE_MAMBA_BUILD_BENCHMARKS=OFF
suite "$build" "release" all ""

echo
printf '%s' "$summary"
if [ $status -eq 0 ]; then echo "everything passed"; else echo "something failed"; fi
exit $status
