# xgrammar, the grammar library: only its C++ core, as a static library without warnings. Its own
# CMakeLists.txt is not used: it forces flags on the project and turns on bindings for Python.
#
# The source is, in this order: OCTAVO_XGRAMMAR_SOURCE; .deps/, where tools/fetch_xgrammar.py puts it;
# the project's repository.
set(octavo_xgrammar_version 0.2.8)
set(OCTAVO_XGRAMMAR_SOURCE "" CACHE PATH "The source tree of xgrammar ${octavo_xgrammar_version}")

set(octavo_xgrammar_dir "${OCTAVO_XGRAMMAR_SOURCE}")
if(NOT octavo_xgrammar_dir)
  set(octavo_xgrammar_dir ${PROJECT_SOURCE_DIR}/.deps/xgrammar-${octavo_xgrammar_version})
  if(NOT EXISTS ${octavo_xgrammar_dir}/cpp/grammar_matcher.cc)
    # SOURCE_SUBDIR without a CMakeLists.txt: it is fetched, not added.
    FetchContent_Declare(xgrammar
      GIT_REPOSITORY https://github.com/mlc-ai/xgrammar.git GIT_TAG v${octavo_xgrammar_version}
      GIT_SHALLOW ON GIT_SUBMODULES 3rdparty/picojson 3rdparty/dlpack SOURCE_SUBDIR include)
    FetchContent_MakeAvailable(xgrammar)
    set(octavo_xgrammar_dir ${xgrammar_SOURCE_DIR})
  endif()
endif()
if(NOT EXISTS ${octavo_xgrammar_dir}/cpp/grammar_matcher.cc)
  message(FATAL_ERROR "OCTAVO_XGRAMMAR_SOURCE: ${octavo_xgrammar_dir} holds no cpp/grammar_matcher.cc")
endif()

file(GLOB octavo_xgrammar_sources CONFIGURE_DEPENDS ${octavo_xgrammar_dir}/cpp/*.cc
     ${octavo_xgrammar_dir}/cpp/converter_ext/*.cc ${octavo_xgrammar_dir}/cpp/support/*.cc)
add_library(xgrammar STATIC ${octavo_xgrammar_sources})
target_compile_features(xgrammar PUBLIC cxx_std_17)
# SYSTEM: no warnings from its headers. LOG_CUSTOMIZE: grammar/xgrammar_log.cc takes what it reports.
target_include_directories(xgrammar SYSTEM PUBLIC ${octavo_xgrammar_dir}/include
  ${octavo_xgrammar_dir}/3rdparty/picojson ${octavo_xgrammar_dir}/3rdparty/dlpack/include)
target_compile_definitions(xgrammar PRIVATE
  XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0 XGRAMMAR_LOG_CUSTOMIZE=1)
target_compile_options(xgrammar PRIVATE -w)
foreach(sanitizer IN LISTS OCTAVO_SANITIZE)
  target_compile_options(xgrammar PRIVATE -fsanitize=${sanitizer} -fno-omit-frame-pointer)
endforeach()
find_package(Threads REQUIRED)
target_link_libraries(xgrammar PUBLIC Threads::Threads)
