# moe_mamba_development: the options that our own tests, examples and benchmarks are compiled with. Users' targets do not
# get them.
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "The kind of build" FORCE)
endif()

# Eigen is needed by the tests of eigen.hpp; its sources are also the text that the quickstart reads by default.
if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 QUIET NO_MODULE)
endif()

set(warnings -Wall -Wextra -Wpedantic -Wconversion)

add_library(moe_mamba_development INTERFACE)
target_link_libraries(moe_mamba_development INTERFACE moe_mamba::moe_mamba $<TARGET_NAME_IF_EXISTS:Eigen3::Eigen>)
target_compile_options(
  moe_mamba_development INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>"
                                  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${MOE_MAMBA_WERROR}>>:-Werror>)

if(MOE_MAMBA_NATIVE)
  include(CheckCXXCompilerFlag)
  foreach(flag -march=native -mcpu=native) # the latter is clang's on ARM
    string(MAKE_C_IDENTIFIER "MOE_MAMBA_HAS${flag}" known)
    check_cxx_compiler_flag(${flag} ${known})
    if(${known})
      target_compile_options(moe_mamba_development INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${flag}>)
      break()
    endif()
  endforeach()
endif()

# cuda_tests: whether all tests and examples for CUDA devices are built and run, or only the few files that show that the
# kernels compile. nvcc takes longer than all other compilers together, so it does not compile what this machine cannot run.
set(cuda_tests OFF)
if(NOT MOE_MAMBA_CUDA_TESTS MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "MOE_MAMBA_CUDA_TESTS is ${MOE_MAMBA_CUDA_TESTS}; allowed: AUTO, ON, OFF")
elseif(TARGET moe_mamba::cuda AND NOT MOE_MAMBA_SANITIZE)
  if(MOE_MAMBA_CUDA_TESTS STREQUAL "ON" OR (MOE_MAMBA_CUDA_TESTS STREQUAL "AUTO" AND MOE_MAMBA_CUDA STREQUAL "ON"))
    set(cuda_tests ON)
  elseif(MOE_MAMBA_CUDA_TESTS STREQUAL "AUTO")
    execute_process(COMMAND nvidia-smi --list-gpus OUTPUT_VARIABLE devices ERROR_QUIET)
    if(devices MATCHES "^GPU 0")
      set(cuda_tests ON)
    endif()
  endif()
elseif(MOE_MAMBA_CUDA_TESTS STREQUAL "ON")
  message(FATAL_ERROR "MOE_MAMBA_CUDA_TESTS is ON; allowed: a build with the CUDA Toolkit and without sanitizers, AUTO, OFF")
endif()

if(MOE_MAMBA_SANITIZE)
  # With full instrumentation, unrolled kernels take minutes to compile. Two things make them compile as fast as without:
  # accesses are checked by calls instead of inline code, and the checks of every access that are redundant are left out
  # (what null, alignment, object-size and pointer-overflow would find makes the address sanitizer or an aligned load fail).
  list(JOIN MOE_MAMBA_SANITIZE "," sanitizers)
  set(sanitize -fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  if("undefined" IN_LIST MOE_MAMBA_SANITIZE)
    list(APPEND sanitize -fno-sanitize=null,alignment,object-size,vptr,pointer-overflow)
  endif()
  if("address" IN_LIST MOE_MAMBA_SANITIZE)
    list(APPEND sanitize -fno-sanitize-address-use-after-scope)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      list(APPEND sanitize "SHELL:--param asan-instrumentation-with-call-threshold=0")
    elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
      list(APPEND sanitize "SHELL:-mllvm -asan-instrumentation-with-call-threshold=0")
    endif()
  endif()
  target_compile_options(moe_mamba_development INTERFACE ${sanitize})
  target_link_options(moe_mamba_development INTERFACE -fsanitize=${sanitizers})
endif()
