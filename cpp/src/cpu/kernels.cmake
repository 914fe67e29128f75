# Compiles the kernels once for each instruction set. cpu/isa.cc chooses among them at run time, so
# no other file may get these flags.
#
# Contraction is off so that a * b + c is fused only where a kernel says so: the same bits from every
# compiler and at every level of optimisation.
set(octavo_kernel_flags -ffp-contract=off -fno-math-errno)
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  list(APPEND octavo_kernel_flags -O3)
endif()
set_source_files_properties(src/cpu/kernels_generic.cc PROPERTIES
  COMPILE_OPTIONS "${octavo_kernel_flags}")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set_source_files_properties(src/cpu/kernels_avx2.cc PROPERTIES
    COMPILE_OPTIONS "${octavo_kernel_flags};-mavx2;-mfma;-mf16c")
  set_source_files_properties(src/cpu/kernels_avx512.cc PROPERTIES
    COMPILE_OPTIONS
    "${octavo_kernel_flags};-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mprefer-vector-width=512")
endif()
# The sampler's sums are the same bits on every machine, by the same rule.
set_source_files_properties(src/backend/sample_row.cc src/backend/row_logprobs.cc
                            src/backend/edit_logits.cc PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
