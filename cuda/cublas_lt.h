// cuBLASLt, opened at run time: the few of its functions that Gemm calls. Loaded once for the
// process and never unloaded; callable from any thread.
#pragma once

#include <cublasLt.h>

#include <string>

namespace octavo::cuda {

// Pointers to functions of the library, with the types of the header.
struct CublasLt {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;

  std::string path;  // what was opened

  // Throws where `status` is no success; the message begins with "cuda: cuBLASLt: " and `what`.
  void check(cublasStatus_t status, const char* what) const;
};

// Looks into $OCTAVO_CUBLAS_DIR, the wheel nvidia-cublas beside this package, and then where the
// loader looks. Throws NotSupported that says where was looked.
const CublasLt& cublas_lt();

}  // namespace octavo::cuda
