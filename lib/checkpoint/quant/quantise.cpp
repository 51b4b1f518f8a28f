#include "lib/checkpoint/quant/quantise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "lib/core/dtype.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using Bytes = std::vector<std::byte>;

template <class T>
void append(Bytes& out, T v) {
  const std::size_t at = out.size();
  out.resize(at + sizeof v);
  std::memcpy(out.data() + at, &v, sizeof v);
}

void f32(const float* x, Bytes& out) {
  append(out, *x);
}
void f16(const float* x, Bytes& out) {
  append(out, float_to_f16(*x));
}
void bf16(const float* x, Bytes& out) {
  append(out, float_to_bf16(*x));
}

// The scale is kept in float16; numbers are divided by the scale before that rounding, as ggml does
// it.
void q8_0(const float* x, Bytes& out) {
  constexpr int count = 32;
  float most = 0;
  for (int i = 0; i < count; ++i)
    most = std::max(most, std::abs(x[i]));
  const float scale = most / 127;
  const float inverse = scale > 0 ? 1 / scale : 0;
  append(out, float_to_f16(scale));
  for (int i = 0; i < count; ++i)
    append(out, std::int8_t(std::round(x[i] * inverse)));
}

// Of each block the number furthest from 0 becomes -8 of the scale, which thereby has its sign; the
// others are rounded to -8..7 of it. Number j stands in the low half of byte j, j + 16 in the high.
void q4_0(const float* x, Bytes& out) {
  constexpr int count = 32;
  constexpr int half = count / 2;
  float furthest = 0;
  for (int i = 0; i < count; ++i)
    furthest = std::abs(x[i]) > std::abs(furthest) ? x[i] : furthest;
  const float scale = furthest / -8;
  const float inverse = scale != 0 ? 1 / scale : 0;
  append(out, float_to_f16(scale));
  const auto code = [&](int i) {
    return unsigned(std::min(15, int(x[i] * inverse + 8.5f)));
  };
  for (int i = 0; i < half; ++i)
    append(out, std::uint8_t(code(i) | code(i + half) << 4));
}

struct Format {
  std::string_view name;
  void (*block)(const float*, Bytes&);
};
constexpr std::array formats = {Format{"F32", f32}, Format{"F16", f16}, Format{"BF16", bf16},
                                Format{"Q8_0", q8_0}, Format{"Q4_0", q4_0}};

}  // namespace

bool can_quantise(const GgmlType& type) {
  return std::ranges::find(formats, type.name, &Format::name) != formats.end();
}

void quantise(const GgmlType& type, std::span<const float> numbers, std::vector<std::byte>& out) {
  const auto format = std::ranges::find(formats, type.name, &Format::name);
  if (format == formats.end() || Index(numbers.size()) % type.block != 0)
    throw Error(Exit::bug, concat(numbers.size(), " numbers cannot be ", type.name));
  out.reserve(out.size() + numbers.size() / std::size_t(type.block) * std::size_t(type.bytes));
  for (std::size_t i = 0; i < numbers.size(); i += std::size_t(type.block))
    format->block(numbers.data() + i, out);
}

}  // namespace moe
