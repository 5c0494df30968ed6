// The main() of the tests of models on a device. Without a device they count as skipped.
#define CATCH_CONFIG_RUNNER
#include <cstdio>
#include <cuda_runtime.h>

#include "support/catch.hpp"

int main(int count, char** arguments) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  return Catch::Session().run(count, arguments);
}
