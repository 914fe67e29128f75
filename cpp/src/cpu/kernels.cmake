# Compiles the kernels for each instruction set that has some of its own. cpu/isa.cc chooses among
# them at run time, so no other file may get these flags.
#
# Contraction is off so that a * b + c is fused only where a kernel says so: the same bits from every
# compiler and at every level of optimisation.
set(octavo_kernel_flags -ffp-contract=off -fno-math-errno)
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  list(APPEND octavo_kernel_flags -O3)
endif()
set(octavo_kernel_sources ${CMAKE_CURRENT_LIST_DIR}/kernels)

# octavo_kernels(<isa> DEFINES <of simd.h> FLAGS <compiler's> GROUPS <files of kernels/>): an object
# library of those groups in the namespace octavo::<isa>.
function(octavo_kernels isa)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "DEFINES;FLAGS;GROUPS")
  list(TRANSFORM arg_GROUPS REPLACE "(.+)" "${octavo_kernel_sources}/\\1.cc")
  list(TRANSFORM arg_DEFINES PREPEND "OCTAVO_ISA_")
  add_library(octavo_kernels_${isa} OBJECT ${arg_GROUPS})
  target_include_directories(octavo_kernels_${isa} PRIVATE
    $<TARGET_PROPERTY:octavo_backend,INTERFACE_INCLUDE_DIRECTORIES>)
  target_compile_definitions(octavo_kernels_${isa} PRIVATE
    OCTAVO_ISA_NAMESPACE=${isa} ${arg_DEFINES})
  target_compile_options(octavo_kernels_${isa} PRIVATE ${octavo_kernel_flags} ${arg_FLAGS})
  target_link_libraries(octavo_kernels_${isa} PRIVATE octavo_flags)
endfunction()

# The same, as a part of the library.
function(octavo_shipped_kernels isa)
  octavo_kernels(${isa} ${ARGN})
  target_sources(octavo_cpu PRIVATE $<TARGET_OBJECTS:octavo_kernels_${isa}>)
  set_property(GLOBAL APPEND PROPERTY octavo_layers octavo_kernels_${isa})
endfunction()

set(octavo_all_groups floats integers attention rows)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  octavo_shipped_kernels(generic DEFINES GENERIC FLAGS -march=x86-64-v2
    GROUPS ${octavo_all_groups})
  set(octavo_avx2_flags -mavx2 -mfma -mf16c)
  octavo_shipped_kernels(avx2 DEFINES AVX2 FLAGS ${octavo_avx2_flags} GROUPS ${octavo_all_groups})
  set(octavo_avx512_flags ${octavo_avx2_flags}
    -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
  octavo_shipped_kernels(avx512 DEFINES AVX512 FLAGS ${octavo_avx512_flags}
    GROUPS ${octavo_all_groups})
  # Each of these adds to the one before it.
  octavo_shipped_kernels(avx512_vnni DEFINES AVX512 AVX512_VNNI
    FLAGS ${octavo_avx512_flags} -mavx512vnni GROUPS integers)
  octavo_shipped_kernels(avx512_bf16 DEFINES AVX512 AVX512_BF16
    FLAGS ${octavo_avx512_flags} -mavx512bf16 GROUPS bfloat16 attention)
  octavo_shipped_kernels(avx512_amx DEFINES AVX512 AVX512_BF16
    FLAGS ${octavo_avx512_flags} -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8
    GROUPS amx_bfloat16 amx_integers)
  if(OCTAVO_BUILD_TESTS)  # the kernels of AMX on tiles in software, for machines with AVX-512 alone
    octavo_kernels(avx512_amx_model DEFINES AVX512 AMX_MODEL FLAGS ${octavo_avx512_flags}
      GROUPS amx_bfloat16 amx_integers)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  octavo_shipped_kernels(generic DEFINES GENERIC GROUPS ${octavo_all_groups})
  octavo_shipped_kernels(neon DEFINES NEON GROUPS ${octavo_all_groups})
  octavo_shipped_kernels(neon_dot DEFINES NEON NEON_DOT FLAGS -march=armv8.2-a+dotprod
    GROUPS integers)
  octavo_shipped_kernels(neon_bf16 DEFINES NEON NEON_DOT FLAGS -march=armv8.2-a+dotprod+bf16
    GROUPS bfloat16)
else()
  octavo_shipped_kernels(generic DEFINES GENERIC GROUPS ${octavo_all_groups})
endif()
# The sampler's sums are the same bits on every machine, by the same rule.
set_source_files_properties(src/backend/sample_row.cc src/backend/row_logprobs.cc
                            src/backend/edit_logits.cc PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
