# The CMake package: `find_package(octavo)` gives the target octavo::octavo. Nothing in it names a
# path of the machine that built it, so the installed tree can be moved.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# A wheel keeps the whole C++ tree inside the Python package (octavo/lib, octavo/include).
set(OCTAVO_INSTALL_PREFIX "" CACHE STRING "Path put before lib/ and include/ on installation")
if(OCTAVO_INSTALL_PREFIX)
  set(octavo_libdir ${OCTAVO_INSTALL_PREFIX}/lib)
  set(octavo_includedir ${OCTAVO_INSTALL_PREFIX}/include)
else()
  set(octavo_libdir ${CMAKE_INSTALL_LIBDIR})
  set(octavo_includedir ${CMAKE_INSTALL_INCLUDEDIR})
endif()
set(octavo_cmakedir ${octavo_libdir}/cmake/octavo)

install(TARGETS octavo EXPORT octavoTargets
        LIBRARY DESTINATION ${octavo_libdir} ARCHIVE DESTINATION ${octavo_libdir}
        INCLUDES DESTINATION ${octavo_includedir})
if(OCTAVO_BUILD_CUDA)
  install(TARGETS octavo_cuda LIBRARY DESTINATION ${octavo_libdir})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/cpp/include/ DESTINATION ${octavo_includedir}
        FILES_MATCHING PATTERN "*.h")
install(FILES ${PROJECT_BINARY_DIR}/generated/octavo/version.h
        DESTINATION ${octavo_includedir}/octavo)
install(EXPORT octavoTargets NAMESPACE octavo:: DESTINATION ${octavo_cmakedir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/octavoConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/octavoConfig.cmake
                              INSTALL_DESTINATION ${octavo_cmakedir}
                              NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/octavoConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/octavoConfig.cmake ${PROJECT_BINARY_DIR}/octavoConfigVersion.cmake
        DESTINATION ${octavo_cmakedir})
