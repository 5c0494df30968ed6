# nlohmann-json, which io.json compares the library's parser with. Without it, that test is left out.
find_package(nlohmann_json 3.9 QUIET NO_MODULE)

# moe_mamba_test_main: Catch2 2.13 or 3 (the system's, otherwise 3.5.2 is downloaded) with a main().
if(NOT TARGET Catch2::Catch2)
  find_package(Catch2 QUIET CONFIG)
  if(NOT Catch2_FOUND)
    message(STATUS "moe_mamba: no Catch2 on this system, fetching 3.5.2")
    include(FetchContent)
    FetchContent_Declare(
      Catch2
      URL https://github.com/catchorg/Catch2/archive/refs/tags/v3.5.2.tar.gz
      URL_HASH SHA256=269543a49eb76f40b3f93ff231d4c24c27a7e16c90e47d2e45bcc564de470c6e)
    FetchContent_MakeAvailable(Catch2)
  endif()
endif()

if(TARGET Catch2::Catch2WithMain)
  add_library(moe_mamba_test_main INTERFACE)
  target_link_libraries(moe_mamba_test_main INTERFACE Catch2::Catch2WithMain)
else()
  add_library(moe_mamba_test_main OBJECT ${CMAKE_CURRENT_LIST_DIR}/../tests/support/main.cpp)
  target_compile_features(moe_mamba_test_main PUBLIC cxx_std_20)
  target_link_libraries(moe_mamba_test_main PUBLIC Catch2::Catch2)
  target_compile_options(moe_mamba_test_main PRIVATE -O0) # compiles in half the time of -O3, and tests run as fast
endif()
