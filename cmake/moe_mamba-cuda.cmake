# The target moe_mamba::cuda, in this tree and in an installed package: the CUDA side of the library, for targets with one
# .cu file or more, whose other files may be C++.
# CUDAToolkit must have been found before. No language is enabled: that is for the project that has .cu files, and with it
# comes the CUDA runtime. cuBLAS is named by its file, as targets of a find module are known in one folder only.
if(NOT TARGET moe_mamba::cuda)
  add_library(moe_mamba::cuda INTERFACE IMPORTED GLOBAL)
  target_link_libraries(moe_mamba::cuda INTERFACE moe_mamba::moe_mamba ${CUDA_cublas_LIBRARY})
  # nvcc knows where its own headers are; what it is given it would take for the system's.
  target_include_directories(moe_mamba::cuda SYSTEM
                             INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${CUDAToolkit_INCLUDE_DIRS}>)
  # Not by a standard's name: CMake 3.25 does not know that nvcc takes this one.
  target_compile_options(moe_mamba::cuda INTERFACE $<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-std=c++20>)
endif()
