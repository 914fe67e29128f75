# Cross compilation for 64-bit ARM by Debian's compiler (g++-aarch64-linux-gnu, of any version), with
# tests run by qemu-user: `cmake --preset aarch64`, `make aarch64`.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max)
find_program(octavo_cross_compiler NAMES aarch64-linux-gnu-g++ aarch64-linux-gnu-g++-15
  aarch64-linux-gnu-g++-14 aarch64-linux-gnu-g++-13 aarch64-linux-gnu-g++-12 REQUIRED)
set(CMAKE_CXX_COMPILER ${octavo_cross_compiler})

# Libraries of headers alone are this machine's. They are linked into a directory of their own, for
# beside them lie headers of this machine's C library.
set(octavo_host_headers ${CMAKE_BINARY_DIR}/host_headers)
foreach(library doctest nlohmann)
  if(EXISTS /usr/include/${library} AND NOT EXISTS ${octavo_host_headers}/${library})
    file(MAKE_DIRECTORY ${octavo_host_headers})
    file(CREATE_LINK /usr/include/${library} ${octavo_host_headers}/${library} SYMBOLIC)
  endif()
endforeach()
set(CMAKE_CXX_STANDARD_INCLUDE_DIRECTORIES ${octavo_host_headers})
