# The library's dependencies: nlohmann-json and threads. The including project's targets and the system's packages are
# preferred; what is missing is downloaded from its release and checked against a pinned hash.
include(FetchContent)
if(POLICY CMP0135)
  cmake_policy(SET CMP0135 NEW) # extracted files get the time of extraction
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

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
