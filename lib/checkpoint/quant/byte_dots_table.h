// The sums over whole numbers that are compiled for a level of processors.
#pragma once
#include <cstddef>
#include <cstdint>

#include "lib/core/byte_row.h"

namespace moe::quant {

struct ByteDotsTable {
  using Rows = void (*)(const std::byte* w, const ByteRow& x, float* y, std::ptrdiff_t rows,
                        std::ptrdiff_t n);
  using Scaled = float (*)(const std::uint8_t* w, const float* scale, const ByteRow& x,
                           std::ptrdiff_t n);
  Rows q8_0, q4_0, q4_k, q6_k;
  Scaled int8, int4;
};

extern const ByteDotsTable byte_dots_v3;    // AVX2, FMA, F16C
extern const ByteDotsTable byte_dots_vnni;  // and AVX-512 with VNNI

}  // namespace moe::quant
