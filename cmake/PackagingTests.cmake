# The library as others take it: tests/packaging is a project of its own, built and run once for each way in. It has two
# translation units that both include the whole library, so that a definition missing its `inline` fails to link.
set(packaging ${PROJECT_BINARY_DIR}/packaging)

add_test(NAME packaging.install COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${packaging}/prefix)
set_tests_properties(packaging.install PROPERTIES FIXTURES_SETUP install LABELS packaging)

# COST, here and elsewhere: what takes long begins first, so that nothing runs alone at the end.
# packaging_test(<name> <cache entry>...): configure, build and run the consumer. Nothing may be downloaded.
function(packaging_test name)
  add_test(
    NAME packaging.${name}
    COMMAND
      ${CMAKE_CTEST_COMMAND} --build-and-test ${PROJECT_SOURCE_DIR}/tests/packaging ${packaging}/${name}
      --build-generator ${CMAKE_GENERATOR} --build-makeprogram ${CMAKE_MAKE_PROGRAM} --build-options
      -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER}
      -DFETCHCONTENT_FULLY_DISCONNECTED=ON ${ARGN} --test-command consumer)
  set_tests_properties(packaging.${name} PROPERTIES LABELS packaging TIMEOUT 600 COST 10)
endfunction()

packaging_test(find_package -DCONSUME=find_package -DCMAKE_PREFIX_PATH=${packaging}/prefix)
set_tests_properties(packaging.find_package PROPERTIES FIXTURES_REQUIRED install)
packaging_test(add_subdirectory -DCONSUME=add_subdirectory -DMOE_MAMBA_SOURCE=${PROJECT_SOURCE_DIR})
packaging_test(fetch_content -DCONSUME=fetch_content -DFETCHCONTENT_SOURCE_DIR_MOE_MAMBA=${PROJECT_SOURCE_DIR})

# The same kernels asked for twice.
add_test(NAME packaging.kernels_twice
         COMMAND ${CMAKE_COMMAND} -S ${PROJECT_SOURCE_DIR}/tests/packaging/kernels_twice -B ${packaging}/kernels_twice
                 -DMOE_MAMBA_SOURCE=${PROJECT_SOURCE_DIR})
set_tests_properties(
  packaging.kernels_twice
  PROPERTIES LABELS packaging PASS_REGULAR_EXPRESSION
             "the target program has[ \n]+::Other with parameters of bfloat16 on the backend cpu already; allowed: each[ \n]+once")

# Objects for two instruction sets in one program, with each compiler of CompileTests.cmake.
foreach(compiler IN LISTS compilers)
  add_test(NAME packaging.instruction_sets.${compiler}
           COMMAND sh ${PROJECT_SOURCE_DIR}/tests/packaging/instruction_sets.sh ${packaging}/instruction_sets/${compiler}
                   ${${compiler}_path} -O0 ${language})
  set_tests_properties(packaging.instruction_sets.${compiler} PROPERTIES LABELS packaging TIMEOUT 600 SKIP_RETURN_CODE 77)
endforeach()

# The CUDA side, where it is part of this build. Without a device the consumer says so, and that it could be built counts;
# one way in is enough then, and the installed package is the one with more to go wrong.
if(TARGET moe_mamba::cuda)
  packaging_test(cuda_find_package -DCONSUME=find_package -DCUDA=ON -DCMAKE_PREFIX_PATH=${packaging}/prefix)
  set_tests_properties(packaging.cuda_find_package PROPERTIES FIXTURES_REQUIRED install)
  if(cuda_tests)
    packaging_test(cuda_add_subdirectory -DCONSUME=add_subdirectory -DCUDA=ON -DMOE_MAMBA_SOURCE=${PROJECT_SOURCE_DIR})
  endif()
endif()

# The tokenizers, likewise.
if(TARGET moe_mamba::tokenizers)
  packaging_test(tokenizers_find_package -DCONSUME=find_package -DTOKENIZERS=ON -DCMAKE_PREFIX_PATH=${packaging}/prefix)
  set_tests_properties(packaging.tokenizers_find_package PROPERTIES FIXTURES_REQUIRED install)
  packaging_test(tokenizers_add_subdirectory -DCONSUME=add_subdirectory -DTOKENIZERS=ON -DMOE_MAMBA_TOKENIZERS=ON
                 -DMOE_MAMBA_SOURCE=${PROJECT_SOURCE_DIR})
endif()
