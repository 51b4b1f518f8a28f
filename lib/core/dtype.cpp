#include "lib/core/dtype.h"

#include <cmath>

namespace moe {

float f16_to_float(std::uint16_t h) {
  const int exponent = (h >> 10) & 31, fraction = h & 1023;
  const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                     : exponent == 0 ? std::ldexp(float(fraction), -24)
                                     : std::ldexp(float(fraction + 1024), exponent - 25);
  return (h & 0x8000) ? -size : size;
}

std::uint16_t float_to_f16(float f) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(f);
  const std::uint16_t sign = std::uint16_t((u >> 16) & 0x8000u);
  const std::uint32_t size = u & 0x7fffffffu;
  if (size > 0x7f800000u) return std::uint16_t(sign | 0x7e00u);
  if (size >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);  // rounds past 65504
  if (size < 0x38800000u)                                         // subnormal: nearbyint rounds to nearest even
    return std::uint16_t(sign | std::uint16_t(std::nearbyint(std::ldexp(std::bit_cast<float>(size), 24))));
  const std::uint32_t rounded = size + 0xfffu + ((size >> 13) & 1u);
  return std::uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace moe
