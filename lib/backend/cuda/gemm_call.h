// One call of a BLAS product, in its own column-major terms, and how the row-major products of a
// backend are written in them: a row-major (r,c) matrix is a column-major (c,r) one, so every
// product is computed transposed.
#pragma once
#include "lib/core/view.h"

namespace moe::gpu {

// C (m,n) = op(A) (m,k) op(B) (k,n) + beta C; column-major, ld = rows of the matrix as stored
struct Gemm {
  bool transpose_a = false, transpose_b = false;
  Index m = 0, n = 0, k = 0;
  const void* a = nullptr;
  Index lda = 0;
  const void* b = nullptr;
  Index ldb = 0;
  void* c = nullptr;
  Index ldc = 0;
  float beta = 0;
};
struct GemmTypes {                         // sums are always f32
  bool half_in = false, half_out = false;  // bf16 instead of f32
};

// y (rows,out) = x (rows,in) w (out,in)' + beta y
inline Gemm forward_gemm(Index rows, Index in, Index out, const void* x, const void* w, void* y,
                         float beta) {
  return {true, false, out, rows, in, w, in, x, in, y, out, beta};
}
// dx (rows,in) = dy (rows,out) w (out,in) + beta dx
inline Gemm dx_gemm(Index rows, Index in, Index out, const void* dy, const void* w, void* dx,
                    float beta) {
  return {false, false, in, rows, out, w, in, dy, out, dx, in, beta};
}
// dw (out,in) = dy (rows,out)' x (rows,in) + beta dw
inline Gemm dw_gemm(Index rows, Index in, Index out, const void* dy, const void* x, void* dw,
                    float beta) {
  return {false, true, in, out, rows, x, in, dy, out, dw, in, beta};
}

}  // namespace moe::gpu
