# Defines the target moe_mamba::tokenizers, in this tree and in an installed package: the tokenizers of public checkpoints, which
# need utf8proc. Searches for its header and library, since not every distribution's package has CMake files.
# Sets moe_mamba_tokenizers_FOUND.
if(NOT TARGET moe_mamba::tokenizers)
  find_path(MOE_MAMBA_UTF8PROC_FOLDER utf8proc.h DOC "The folder of utf8proc.h")
  find_library(MOE_MAMBA_UTF8PROC_LIBRARY utf8proc DOC "The library utf8proc")
  mark_as_advanced(MOE_MAMBA_UTF8PROC_FOLDER MOE_MAMBA_UTF8PROC_LIBRARY)
  if(MOE_MAMBA_UTF8PROC_FOLDER AND MOE_MAMBA_UTF8PROC_LIBRARY)
    add_library(moe_mamba::tokenizers INTERFACE IMPORTED GLOBAL)
    target_link_libraries(moe_mamba::tokenizers INTERFACE moe_mamba::moe_mamba ${MOE_MAMBA_UTF8PROC_LIBRARY})
    target_include_directories(moe_mamba::tokenizers SYSTEM INTERFACE ${MOE_MAMBA_UTF8PROC_FOLDER})
  endif()
endif()
if(TARGET moe_mamba::tokenizers)
  set(moe_mamba_tokenizers_FOUND TRUE)
else()
  set(moe_mamba_tokenizers_FOUND FALSE)
endif()
