# Functions of the scripts beside this folder: what they install, and how they build an example for this machine. They set
# `program`, the name in messages, `here`, the repository, and `cuda`, ON or OFF, before.
build=$here/build-examples
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

have() { command -v "$1" >/dev/null 2>&1; }
have_header() { [ -e "/usr/include/$1" ] || [ -e "/usr/local/include/$1" ]; }
complain() { printf '%s: %s\n' "$program" "$*" >&2; }

explain_requirements() {
  complain "please install a C++20 compiler (g++ 12, clang 14 or newer), CMake 3.22 or newer, Ninja and Eigen 3.4"
  complain "and run this again; Debian and Ubuntu call what is missing:$missing"
}

# Installs what is missing, or says what to install.
install_requirements() {
  missing=""
  have c++ || have g++ || have clang++ || missing="$missing g++"
  have cmake || missing="$missing cmake"
  have ninja || missing="$missing ninja-build"
  have_header eigen3/Eigen/Core || missing="$missing libeigen3-dev"

  if [ -n "$missing" ]; then
    if have apt-get && { [ "$(id -u)" -eq 0 ] || have sudo; }; then
      sudo=""
      if [ "$(id -u)" -ne 0 ]; then
        sudo=sudo
        echo "sudo is needed to install:$missing"
      else
        echo "installing:$missing"
      fi
      $sudo apt-get -q update >/dev/null || complain "apt-get update failed; trying without"
      # shellcheck disable=SC2086 # a list of packages
      $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing >/dev/null || {
        complain "could not install:$missing"
        explain_requirements
        exit 1
      }
    else
      explain_requirements
      # CMake downloads the libraries that it does not find, but the tools are needed.
      have cmake && have ninja && { have c++ || have g++ || have clang++; } || exit 1
      complain "continuing: CMake will try to download the libraries"
    fi
  fi
}

# build_example NAME [HOW LONG]: builds example.NAME; ends the script with the compiler's messages where that fails.
build_example() {
  # A build folder that was copied along with the repository contains the paths of the original.
  if [ -e "$build/CMakeCache.txt" ] && ! grep -qF "CMAKE_HOME_DIRECTORY:INTERNAL=$here" "$build/CMakeCache.txt"; then
    rm -rf "$build"
  fi

  # Some instructions of compute capability 9.0 exist in code for 9.0a only.
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
  case $capability in
  '' | 90) gencode=arch=compute_90a,code=sm_90a ;;
  *) gencode=arch=compute_$capability,code=sm_$capability ;;
  esac

  log=$build/build.log
  mkdir -p "$build" || {
    complain "$build: cannot be created"
    exit 1
  }
  [ -e "$build/examples/$1" ] || echo "building, which takes ${2:-a minute or two}"
  {
    cmake -S "$here" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMOE_MAMBA_NATIVE=ON -DMOE_MAMBA_BUILD_TESTS=OFF \
      -DMOE_MAMBA_BUILD_BENCHMARKS=OFF -DMOE_MAMBA_BUILD_EXAMPLES=ON -DMOE_MAMBA_CUDA=$cuda \
      -DMOE_MAMBA_CUDA_GENCODE=$gencode &&
      cmake --build "$build" --target "example.$1" -j "$jobs"
  } >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    complain "the build failed; its whole output is in $log"
    exit 1
  }
}
