# CUDA as a language of our own tests and examples, for the devices that MOE_MAMBA_CUDA_GENCODE names.
set(CMAKE_CUDA_ARCHITECTURES OFF) # 3.25 does not know 90a, whose instructions the bfloat16 products use
set(MOE_MAMBA_CUDA_GENCODE "arch=compute_90a,code=sm_90a" CACHE STRING
    "What nvcc's -gencode gets in our tests and examples; several, as a list")
if(NOT CMAKE_CUDA_COMPILER AND CUDAToolkit_NVCC_EXECUTABLE)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
endif()
enable_language(CUDA)

# What our targets with .cu files are compiled with. Warnings of host code are those of the C++ targets.
function(moe_mamba_cuda_options target)
  list(TRANSFORM MOE_MAMBA_CUDA_GENCODE PREPEND "-gencode=" OUTPUT_VARIABLE gencode)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${gencode};-Xcompiler=-Wall,-Wextra>")
  if(MOE_MAMBA_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
  endif()
endfunction()
