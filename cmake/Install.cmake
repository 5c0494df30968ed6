# Installs the headers and a CMake package for find_package(moe_mamba). Neither depends on the architecture.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_DATADIR}/cmake/moe_mamba)

install(TARGETS moe_mamba EXPORT moe_mamba)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/moe_mamba DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/moe_mamba)
install(EXPORT moe_mamba FILE moe_mamba-targets.cmake NAMESPACE moe_mamba:: DESTINATION ${package_folder})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/moe_mamba-config.cmake.in
                              ${PROJECT_BINARY_DIR}/moe_mamba-config.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/moe_mamba-config-version.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/moe_mamba-config.cmake ${PROJECT_BINARY_DIR}/moe_mamba-config-version.cmake
              ${CMAKE_CURRENT_LIST_DIR}/moe_mamba-cuda.cmake ${CMAKE_CURRENT_LIST_DIR}/moe_mamba-kernels.cmake
              ${CMAKE_CURRENT_LIST_DIR}/moe_mamba-tokenizers.cmake
        DESTINATION ${package_folder})
