// Element types of stored tensors, and the conversions between the 16-bit floats and float (round to nearest even).
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>

#include "lib/core/view.h"

namespace moe {

enum class DType : std::uint8_t { f64, f32, bf16, f16, i64, i32, u32, u16, u8, i8 };

constexpr Index bytes_of(DType t) {
  switch (t) {
    case DType::f64: case DType::i64: return 8;
    case DType::f32: case DType::i32: case DType::u32: return 4;
    case DType::bf16: case DType::f16: case DType::u16: return 2;
    default: return 1;
  }
}
constexpr std::string_view name_of(DType t) {
  constexpr std::string_view names[] = {"f64", "f32", "bf16", "f16", "i64", "i32", "u32", "u16", "u8", "i8"};
  return names[std::size_t(t)];
}
template <class T> constexpr DType dtype_of = DType::f32;
template <> inline constexpr DType dtype_of<double> = DType::f64;
template <> inline constexpr DType dtype_of<std::int32_t> = DType::i32;

MOE_HD inline float bf16_to_float(std::uint16_t h) { return std::bit_cast<float>(std::uint32_t(h) << 16); }
MOE_HD inline std::uint16_t float_to_bf16(float f) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return std::uint16_t((u >> 16) | 0x40u);  // a NaN stays a NaN
  return std::uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float f16_to_float(std::uint16_t);
std::uint16_t float_to_f16(float);

}  // namespace moe
