// One product of float matrices on the calling thread: what a tile of the cpu backend is computed
// with. The file behind it is chosen by CMake: gemm/onednn.cpp (code made at run time for the
// processor) or, where oneDNN is missing, gemm/eigen.cpp.
#pragma once
#include <string_view>

#include "lib/core/view.h"

namespace moe {

enum class Op : char { plain = 'N', transposed = 'T' };

template <class T>
// a row-major matrix whose rows are `step` numbers apart, read as it is or transposed
struct OperandOf {
  const T* data;
  Index step;
  Op op = Op::plain;
};
using Operand = OperandOf<float>;

// c (m,n) = a (m,k) b (k,n) + beta c; with beta 0 what c held does not matter. The sizes are those
// after transposing.
void gemm(Index m, Index n, Index k, Operand a, Operand b, float beta, float* c, Index c_step);
std::string_view gemm_library();  // "oneDNN 2.6.3"

namespace detail {
// The cases a library need not know: true where there was nothing to multiply (and c is then beta
// c).
bool gemm_trivial(Index m, Index n, Index k, float beta, float* c, Index c_step);
// c = beta c; with beta 0 what c held does not matter
void scale(Index m, Index n, float beta, float* c, Index c_step);
}  // namespace detail

}  // namespace moe
