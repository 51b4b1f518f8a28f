// One product of bf16 matrices on the calling thread, summed in f32: what a tile of cpu:dtype=bf16
// is computed with. The file behind it is chosen by CMake, as for gemm.h: gemm/onednn_half.cpp, or
// gemm/no_half.cpp where there is no library with such products.
#pragma once
#include <cstdint>
#include <string>

#include "lib/backend/gemm.h"

namespace moe {

using Half = std::uint16_t;  // the bits of a bf16
using HalfOperand = OperandOf<Half>;

// Why this machine has no bf16 products, as the end of a sentence; empty where it has them (AVX-512
// BF16, AMX).
std::string no_half_products();

// c (m,n) = a (m,k) b (k,n) + beta c; with beta 0 what c held does not matter. Sizes after
// transposing. Any shape costs no more than its work: nothing is made for it.
void gemm(Index m, Index n, Index k, HalfOperand a, HalfOperand b, float beta, float* c,
          Index c_step);

}  // namespace moe
