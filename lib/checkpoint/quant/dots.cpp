#include "lib/checkpoint/quant/dots.h"

#ifdef MOE_DOTS
#include <cpuid.h>
#endif

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "lib/checkpoint/quant/blocks.h"
#include "lib/checkpoint/quant/byte_dots_table.h"
#include "lib/checkpoint/quant/dots_table.h"
#include "lib/core/clones.h"

namespace moe::quant {
namespace {

// What the processor has of the levels that sums are compiled for.
struct Levels {
  bool v3 = false, v4 = false, vnni = false;
};
#ifdef MOE_DOTS
// Not every compiler knows this one by name.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
#endif

const Levels& levels() {
#ifdef MOE_DOTS
  static const Levels found = [] {
    Levels l;
    l.v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    l.v4 = l.v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    l.vnni = l.v4 && __builtin_cpu_supports("avx512vnni");
    return l;
  }();
#else
  static const Levels found;
#endif
  return found;
}

// nullptr where the processor has none of the levels.
const DotsTable* table() {
#ifdef MOE_DOTS
  return levels().v4 ? &dots_v4 : levels().v3 ? &dots_v3 : nullptr;
#else
  return nullptr;
#endif
}

// The fastest first.
std::vector<const ByteDotsTable*> byte_tables() {
  std::vector<const ByteDotsTable*> out;
#ifdef MOE_DOTS
  if (levels().vnni)
    out.push_back(&byte_dots_vnni);
  if (levels().v3)
    out.push_back(&byte_dots_v3);
#endif
  return out;
}
const ByteDotsTable* byte_table() {
  static const ByteDotsTable* const found = byte_tables().empty() ? nullptr : byte_tables().front();
  return found;
}

struct Format {
  std::string_view type;
  DotsTable::Rows DotsTable::*dots;
  std::array<int, 2> scales;  // where float16 scales stand in a block; -1 = none
  ByteDotsTable::Rows ByteDotsTable::*byte_dots = nullptr;
};
constexpr std::array formats{
    Format{"F32", &DotsTable::f32, {-1, -1}},
    Format{"BF16", &DotsTable::bf16, {-1, -1}},
    Format{"F16", &DotsTable::f16, {-1, -1}},
    Format{"Q8_0", &DotsTable::q8_0, {0, -1}, &ByteDotsTable::q8_0},
    Format{"Q4_0", &DotsTable::q4_0, {0, -1}, &ByteDotsTable::q4_0},
    Format{"Q4_K", &DotsTable::q4_k, {0, 2}, &ByteDotsTable::q4_k},
    Format{"Q6_K", &DotsTable::q6_k, {208, -1}, &ByteDotsTable::q6_k},
};

const Format* format_of(std::string_view type) {
  const auto found = std::ranges::find(formats, type, &Format::type);
  return found == formats.end() ? nullptr : &*found;
}

RowDots dots_of(std::string_view type) {
  const Format* f = format_of(type);
  return f && table() ? table()->*f->dots : nullptr;
}

std::string_view ggml_name(DType type) {
  return type == DType::f32    ? "F32"
         : type == DType::bf16 ? "BF16"
         : type == DType::f16  ? "F16"
                               : "";
}

// The largest of these bits of each number.
template <class Bits>
MOE_INLINE Bits largest_bits(const std::byte* numbers, std::size_t count, Bits mask) {
  Bits largest = 0;
#pragma omp simd reduction(max : largest)
  for (std::size_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, numbers + i * sizeof bits, sizeof bits);
    const Bits kept = bits & mask;
    largest = largest < kept ? kept : largest;
  }
  return largest;
}
MOE_SIMD bool exponents_below(std::uint32_t exponent, const std::byte* numbers, std::size_t count) {
  return largest_bits(numbers, count, exponent) < exponent;
}
MOE_SIMD bool exponents_below(std::uint16_t exponent, const std::byte* numbers, std::size_t count) {
  return largest_bits(numbers, count, exponent) < exponent;
}

constexpr std::uint16_t f16_exponent = 0x7c00;

bool scales_finite(const Format& f, const GgmlType& type, std::span<const std::byte> blocks) {
  std::uint16_t largest = 0;
  for (std::size_t at = 0; at < blocks.size(); at += std::size_t(type.bytes)) {
    for (const int scale : f.scales) {
      if (scale >= 0) {
        const auto* bytes = reinterpret_cast<const Byte*>(blocks.data() + at);
        largest = std::max(largest, std::uint16_t(u16_at(bytes + scale) & f16_exponent));
      }
    }
  }
  return largest < f16_exponent;
}

}  // namespace

RowDots row_dots(const GgmlType& type) {
  return dots_of(type.name);
}
RowDots row_dots(DType type) {
  return dots_of(ggml_name(type));
}
RowByteDots row_byte_dots(const GgmlType& type) {
  const Format* f = format_of(type.name);
  return f && f->byte_dots && byte_table() ? byte_table()->*f->byte_dots : nullptr;
}
std::vector<RowByteDots> byte_dots_of_levels(const GgmlType& type) {
  std::vector<RowByteDots> out;
  const Format* f = format_of(type.name);
  for (const ByteDotsTable* level : byte_tables()) {
    if (f && f->byte_dots)
      out.push_back(level->*f->byte_dots);
  }
  return out;
}

bool has_dots(const FewBitsFormat& f, Index cols) {
  const Index block = f.block == 0 ? cols : f.block;
  return table() && (f.kind == FewBits::int8 || f.kind == FewBits::int4) && cols % 32 == 0 &&
         block % 32 == 0;
}

float few_bits_dot(const FewBitsFormat& f, const FewBitsRow& row, const ActivationRow& x, Index n) {
  thread_local std::vector<float> scale;  // of each 32 numbers
  const Index block = f.block == 0 ? n : f.block;
  scale.resize(std::size_t(n / 32));
  for (Index b = 0; b < n / block; ++b)
    std::fill_n(scale.begin() + b * (block / 32), block / 32, scale_of(row, b));
  const auto* numbers = reinterpret_cast<const std::uint8_t*>(row.numbers);
  if (x.bytes.number) {
    const auto dot = f.kind == FewBits::int8 ? byte_table()->int8 : byte_table()->int4;
    return dot(numbers, scale.data(), x.bytes, n);
  }
  const auto dot = f.kind == FewBits::int8 ? table()->int8 : table()->int4;
  return dot(numbers, scale.data(), x.number, n);
}

bool all_finite(DType type, std::span<const std::byte> numbers) {
  if (type == DType::f32)
    return exponents_below(std::uint32_t(0x7f800000), numbers.data(), numbers.size() / 4);
  const std::uint16_t exponent = type == DType::bf16 ? 0x7f80 : f16_exponent;
  return exponents_below(exponent, numbers.data(), numbers.size() / 2);
}

bool all_finite(const GgmlType& type, std::span<const std::byte> blocks) {
  const Format* f = format_of(type.name);
  if (f && f->scales[0] >= 0)
    return scales_finite(*f, type, blocks);
  return all_finite(type.name == "F32"    ? DType::f32
                    : type.name == "BF16" ? DType::bf16
                                          : DType::f16,
                    blocks);
}

}  // namespace moe::quant
