#include "lib/core/dtype.h"

#include <cmath>

namespace moe {

float f16_to_float(std::uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int fraction = h & 1023;
  const float size = exponent == 31  ? (fraction ? NAN : INFINITY)
                     : exponent == 0 ? std::ldexp(float(fraction), -24)
                                     : std::ldexp(float(fraction + 1024), exponent - 25);
  return (h & 0x8000) ? -size : size;
}

std::uint16_t float_to_f16(float f) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(f);
  const std::uint16_t sign = std::uint16_t((u >> 16) & 0x8000u);
  const std::uint32_t size = u & 0x7fffffffu;
  if (size > 0x7f800000u)
    return std::uint16_t(sign | 0x7e00u);
  if (size >= 0x477ff000u)
    return std::uint16_t(sign | 0x7c00u);  // rounds past 65504
  // subnormal: nearbyint rounds to nearest even
  if (size < 0x38800000u) {
    return std::uint16_t(sign |
                         std::uint16_t(std::nearbyint(std::ldexp(std::bit_cast<float>(size), 24))));
  }
  const std::uint32_t rounded = size + 0xfffu + ((size >> 13) & 1u);
  return std::uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

// OCP: e4m3 has no infinity and one NaN a sign, e5m2 is a small IEEE half. The fnuz kinds have one
// more in the bias, no negative zero, and 0x80 as their only NaN.
float f8_to_float(DType t, std::uint8_t v) {
  if (t == DType::f8_e8m0)
    return v == 255 ? NAN : std::ldexp(1.0f, int(v) - 127);
  const bool fnuz = t == DType::f8_e4m3fnuz || t == DType::f8_e5m2fnuz;
  const int mantissa_bits = t == DType::f8_e4m3 || t == DType::f8_e4m3fnuz ? 3 : 2;
  const int exponent_bits = 7 - mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1 + fnuz;
  const int mantissa = v & ((1 << mantissa_bits) - 1);
  const int exponent = (v & 0x7f) >> mantissa_bits;
  if (fnuz && v == 0x80)
    return NAN;
  if (t == DType::f8_e4m3 && (v & 0x7f) == 0x7f)
    return NAN;
  float size = exponent == 0 ? std::ldexp(float(mantissa), 1 - bias - mantissa_bits)
                             : std::ldexp(float(mantissa + (1 << mantissa_bits)),
                                          exponent - bias - mantissa_bits);
  if (t == DType::f8_e5m2 && exponent == 31)
    size = mantissa ? NAN : INFINITY;
  return (v & 0x80) ? -size : size;
}

}  // namespace moe
