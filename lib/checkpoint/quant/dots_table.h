// The sums that are compiled for a level of processors.
#pragma once
#include <cstddef>
#include <cstdint>

namespace moe::quant {

struct DotsTable {
  using Rows = void (*)(const std::byte* w, const float* x, float* y, std::ptrdiff_t rows,
                        std::ptrdiff_t n);
  using Scaled = float (*)(const std::uint8_t* w, const float* scale, const float* x,
                           std::ptrdiff_t n);
  Rows f32, bf16, f16, q8_0, q4_0, q4_k, q6_k;
  Scaled int8, int4;
};

extern const DotsTable dots_v3;  // AVX2, FMA, F16C
extern const DotsTable dots_v4;  // and AVX-512

}  // namespace moe::quant
