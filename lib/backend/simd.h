// What the cpu backend's own loops are made of: helpers that are inlined into each clone of a
// MOE_SIMD function. Sums over a row are split among lanes by the compiler (`omp simd reduction`),
// the same way for any number of threads.
#pragma once
#include <bit>
#include <cstdint>

#include "lib/core/clones.h"

namespace moe::simd {

// e^x with a relative error near 1e-7. Below -87.3 it stays at 1e-38 and above 88.3 at 2e38: enough
// for every softmax and sigmoid, and no special case in the loop. NaN stays NaN.
MOE_INLINE float exp(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.3f ? 88.3f : x;
  // 1.5 * 2^23: the rounded exponent lands in the low bits
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts; |r| <= ln(2)/2
  // Taylor: the next term is below 4e-8
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const std::uint32_t power = (std::bit_cast<std::uint32_t>(shifted) << 23) + 0x3f800000u;
  return p * std::bit_cast<float>(power);
}
MOE_INLINE float sigmoid(float x) {
  return 1.0f / (1.0f + exp(-x));
}
MOE_INLINE float tanh(float x) {
  return 1.0f - 2.0f / (1.0f + exp(2.0f * x));
}

// (1 + erf(x/sqrt 2))/2 to 1e-7 absolutely: Abramowitz and Stegun 7.1.26.
MOE_INLINE float normal_cdf(float x) {
  const float a = (x < 0 ? -x : x) * 0.70710678f;
  const float t = 1.0f / (1.0f + 0.3275911f * a);
  const float tail =
      0.5f * t *
      (0.254829592f +
       t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f)))) *
      exp(-a * a);
  return x < 0 ? tail : 1.0f - tail;
}

}  // namespace moe::simd
