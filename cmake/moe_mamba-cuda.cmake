# Defines the target moe_mamba::cuda, in this tree and in an installed package: the CUDA side of the library, for targets with
# at least one .cu file; their other files may be C++.
# CUDAToolkit must have been found before. The CUDA language is not enabled here but by the project with the .cu files, which
# also links the CUDA runtime. cuBLAS is given as a file, since the targets of a find module are visible in one folder only.
if(NOT TARGET moe_mamba::cuda)
  add_library(moe_mamba::cuda INTERFACE IMPORTED GLOBAL)
  target_link_libraries(moe_mamba::cuda INTERFACE moe_mamba::moe_mamba ${CUDA_cublas_LIBRARY})
  # Not for nvcc, which finds its own headers and would treat a given folder as a system folder.
  target_include_directories(moe_mamba::cuda SYSTEM
                             INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${CUDAToolkit_INCLUDE_DIRS}>)
  # As a flag, since CMake 3.25 does not know that nvcc supports C++20.
  target_compile_options(moe_mamba::cuda INTERFACE $<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-std=c++20>)
endif()
