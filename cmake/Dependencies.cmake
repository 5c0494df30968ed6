# What the library needs: Eigen, nlohmann-json, threads. Whatever the including project or the system already has is
# taken; only what is missing is downloaded, from its release and checked against a pinned hash.
include(FetchContent)
if(POLICY CMP0135)
  cmake_policy(SET CMP0135 NEW) # files of an archive get the time of extraction
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 QUIET NO_MODULE) # without a version: Eigen's own check would refuse a newer major version
  if(NOT Eigen3_FOUND)
    message(STATUS "moe_mamba: no Eigen on this system, fetching 3.4.0")
    FetchContent_Declare(
      Eigen
      URL https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz
      URL_HASH SHA256=8586084f71f9bde545ee7fa6d00288b264a2b7ac3607b974e54d13e7162c1c72
      SOURCE_SUBDIR headers_only) # no such folder: Eigen's own build is left alone
    FetchContent_MakeAvailable(Eigen)
    add_library(Eigen3::Eigen INTERFACE IMPORTED GLOBAL)
    target_include_directories(Eigen3::Eigen INTERFACE ${eigen_SOURCE_DIR})
  elseif(Eigen3_VERSION VERSION_LESS 3.4)
    message(FATAL_ERROR "moe_mamba: Eigen is ${Eigen3_VERSION} (${Eigen3_DIR}); allowed: 3.4 or newer. "
                        "-DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON passes it over and fetches 3.4.0.")
  endif()
endif()

if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json 3.9 QUIET NO_MODULE)
  if(NOT nlohmann_json_FOUND)
    message(STATUS "moe_mamba: no nlohmann-json on this system, fetching 3.11.3")
    FetchContent_Declare(
      NlohmannJson
      URL https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
      URL_HASH SHA256=d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d
      SOURCE_SUBDIR headers_only)
    FetchContent_MakeAvailable(NlohmannJson)
    add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED GLOBAL)
    target_include_directories(nlohmann_json::nlohmann_json INTERFACE ${nlohmannjson_SOURCE_DIR}/include)
  endif()
endif()
