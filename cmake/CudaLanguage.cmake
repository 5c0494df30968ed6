# Enables CUDA for our own tests and examples, for the devices that MOE_MAMBA_CUDA_GENCODE lists.
set(CMAKE_CUDA_ARCHITECTURES OFF) # CMake 3.25 does not know 90a, which the bfloat16 products need
set(MOE_MAMBA_CUDA_GENCODE "arch=compute_90a,code=sm_90a" CACHE STRING
    "Arguments of nvcc's -gencode for our tests and examples, as a list")
if(NOT CMAKE_CUDA_COMPILER AND CUDAToolkit_NVCC_EXECUTABLE)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
endif()
enable_language(CUDA)

# Sets the options that a target of ours with .cu files is compiled with.
function(moe_mamba_cuda_options target)
  list(TRANSFORM MOE_MAMBA_CUDA_GENCODE PREPEND "-gencode=" OUTPUT_VARIABLE gencode)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${gencode};-Xcompiler=-Wall,-Wextra>")
  if(MOE_MAMBA_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
  endif()
endfunction()
