// Element types of stored tensors, and the conversions between the 16-bit floats and float (round
// to nearest even).
#pragma once
#include <bit>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "lib/core/view.h"

namespace moe {

// The last eight only ever come from files; f4 and the two f6 are packed without gaps, so an
// element has no address.
enum class DType : std::uint8_t {
  f64,
  f32,
  bf16,
  f16,
  i64,
  i32,
  u32,
  u16,
  u8,
  i8,
  u64,
  i16,
  boolean,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  c64,
  f4,
  f6_e2m3,
  f6_e3m2
};
inline constexpr int dtype_count = 22;

constexpr Index bits_of(DType t) {
  switch (t) {
    case DType::f64:
    case DType::i64:
    case DType::u64:
    case DType::c64:
      return 64;
    case DType::f32:
    case DType::i32:
    case DType::u32:
      return 32;
    case DType::bf16:
    case DType::f16:
    case DType::u16:
    case DType::i16:
      return 16;
    case DType::f6_e2m3:
    case DType::f6_e3m2:
      return 6;
    case DType::f4:
      return 4;
    default:
      return 8;
  }
}
constexpr Index bytes_of(DType t) {
  return bits_of(t) / 8;
}  // 0 for the packed ones
constexpr std::string_view name_of(DType t) {
  constexpr std::string_view names[] = {
      "f64",         "f32",         "bf16", "f16", "i64",     "i32",     "u32",     "u16",
      "u8",          "i8",          "u64",  "i16", "bool",    "f8_e4m3", "f8_e5m2", "f8_e8m0",
      "f8_e4m3fnuz", "f8_e5m2fnuz", "c64",  "f4",  "f6_e2m3", "f6_e3m2"};
  static_assert(std::size(names) == dtype_count);
  return names[std::size_t(t)];
}
template <class T>
constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::i64;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<std::uint32_t> = DType::u32;
template <>
inline constexpr DType dtype_of<std::uint16_t> = DType::u16;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::u8;
template <>
inline constexpr DType dtype_of<std::int8_t> = DType::i8;

MOE_HD inline float bf16_to_float(std::uint16_t h) {
  return std::bit_cast<float>(std::uint32_t(h) << 16);
}
MOE_HD inline std::uint16_t float_to_bf16(float f) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(f);
  // a NaN stays a NaN
  if ((u & 0x7fffffffu) > 0x7f800000u)
    return std::uint16_t((u >> 16) | 0x40u);
  return std::uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float f16_to_float(std::uint16_t);
std::uint16_t float_to_f16(float);
float f8_to_float(DType, std::uint8_t);  // one of the five f8_*; e8m0 is a bare power of two

}  // namespace moe
