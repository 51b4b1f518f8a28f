#include "lib/checkpoint/quant/few_bits.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "lib/core/clones.h"
#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Index fp8_block = 128;
constexpr Index mx_block = 32;
constexpr Index nibbles = 8;  // numbers of 4 bits in an I32
constexpr float largest_e4m3 = 448;
constexpr int largest_e2m1_exponent = 2;  // of 6 = 1.5 * 2^2

struct Named {
  std::string_view name;
  FewBits kind;
};
constexpr std::array kinds = {Named{"int8", FewBits::int8}, Named{"int4", FewBits::int4},
                              Named{"fp8", FewBits::fp8}, Named{"mxfp4", FewBits::mxfp4}};

Index pieces(Index n, Index of) {
  return (n + of - 1) / of;
}
Index block_of(const FewBitsFormat& f, Index cols) {
  return f.block > 0 ? f.block : cols;
}

float largest(std::span<const float> x) {
  float most = 0;
  for (const float v : x)
    most = std::max(most, std::abs(v));
  return most;
}

// The nearest number of an 8-bit float, ties to an even mantissa; beyond the largest the largest.
std::uint8_t to_e4m3(float x) {
  const float size = std::min(std::abs(x), largest_e4m3);
  const std::uint8_t sign = std::signbit(x) ? 0x80 : 0;
  constexpr int mantissa_bits = 3;
  constexpr int least_exponent = -6;
  const int exponent = size > 0 ? std::max(std::ilogb(size), least_exponent) : least_exponent;
  const float steps = std::nearbyint(std::ldexp(size, mantissa_bits - exponent));
  // eight steps and more: the leading bit counts as one more exponent
  const int code = ((exponent - least_exponent) << mantissa_bits) + int(steps);
  return std::uint8_t(sign | code);
}

std::uint8_t to_e2m1(float x) {
  const float size = std::abs(x);
  std::uint8_t best = 0;
  for (std::uint8_t i = 1; i < e2m1_numbers.size() / 2; ++i) {
    const float middle = (e2m1_numbers[i - 1] + e2m1_numbers[i]) / 2;
    if (size > middle || (size == middle && i % 2 == 0))
      best = i;
  }
  return std::uint8_t(best | (std::signbit(x) ? 8 : 0));
}

// Whole numbers of a block: x = scale * q, |q| at most `most`.
float whole_scale(std::span<const float> x, float most) {
  return largest(x) / most;
}
int to_whole(float x, float scale, int most) {
  if (scale == 0)
    return 0;
  return int(std::clamp(std::nearbyint(x / scale), float(-most), float(most)));
}
int most_of(FewBits kind) {
  return kind == FewBits::int8 ? 127 : 7;
}

std::uint8_t mx_scale(std::span<const float> x) {
  const float most = largest(x);
  if (most == 0)
    return 127;
  return std::uint8_t(std::clamp(std::ilogb(most) - largest_e2m1_exponent + 127, 0, 254));
}
float power(std::uint8_t scale) {
  return f8_to_float(DType::f8_e8m0, scale);
}

float fp8_scale(View<const float> w, Index row, Index column) {
  float most = 0;
  for (Index r = row; r < std::min(row + fp8_block, w.rows); ++r) {
    const auto all = w.row(r);
    const auto first = std::size_t(column);
    most = std::max(
        most, largest(all.subspan(first, std::min<std::size_t>(fp8_block, all.size() - first))));
  }
  return most > 0 ? most / largest_e4m3 : 1;
}

// The numbers of a matrix in one of the formats, and their scales.
struct Encoded {
  Tensor numbers, scales;
};

void store_whole(const FewBitsFormat& f, View<const float> w, Encoded& out) {
  const Index block = block_of(f, w.cols);
  const View<float> scales = out.scales.mutable_view<float>();
  const int most = most_of(f.kind);
  const bool bytes = f.kind == FewBits::int8;
  auto* to8 = bytes ? out.numbers.mutable_view<std::int8_t>().data : nullptr;
  auto* to32 = bytes ? nullptr : out.numbers.mutable_view<std::int32_t>().data;
  for (Index r = 0; r < w.rows; ++r) {
    for (Index b = 0; b < scales.cols; ++b) {
      const auto x = w.row(r).subspan(std::size_t(b * block), std::size_t(block));
      const float scale = whole_scale(x, float(most));
      scales(r, b) = scale;
      for (Index i = 0; i < block; ++i) {
        const Index at = r * w.cols + b * block + i;
        const int q = to_whole(x[std::size_t(i)], scale, most);
        if (bytes) {
          to8[at] = std::int8_t(q);
        } else {
          auto bits = std::uint32_t(to32[at / nibbles]);
          bits |= std::uint32_t(q + 8) << (4 * (at % nibbles));
          to32[at / nibbles] = std::int32_t(bits);
        }
      }
    }
  }
}

void store_mx(View<const float> w, Encoded& out) {
  auto* numbers = out.numbers.mutable_view<std::uint8_t>().data;
  auto* scales = out.scales.mutable_view<std::uint8_t>().data;
  for (Index b = 0; b < w.size() / mx_block; ++b) {
    const std::span<const float> x(w.data + b * mx_block, std::size_t(mx_block));
    scales[b] = mx_scale(x);
    for (Index i = 0; i < mx_block; ++i) {
      const std::uint8_t code = to_e2m1(x[std::size_t(i)] / power(scales[b]));
      numbers[(b * mx_block + i) / 2] |= std::uint8_t(code << (4 * (i % 2)));
    }
  }
}

void store_fp8(View<const float> w, Encoded& out) {
  auto* numbers = reinterpret_cast<std::uint8_t*>(out.numbers.mutable_bytes().data());
  const View<float> scales = out.scales.mutable_view<float>();
  for (Index r = 0; r < scales.rows; ++r) {
    for (Index c = 0; c < scales.cols; ++c)
      scales(r, c) = fp8_scale(w, r * fp8_block, c * fp8_block);
  }
  for (Index r = 0; r < w.rows; ++r) {
    for (Index c = 0; c < w.cols; ++c)
      numbers[r * w.cols + c] = to_e4m3(w(r, c) / scales(r / fp8_block, c / fp8_block));
  }
}

struct Shape {
  DType numbers, scales;
  Dims number_dims, scale_dims;
};
Shape shape_of(const FewBitsFormat& f, Index rows, Index cols) {
  switch (f.kind) {
    case FewBits::int8:
      return {DType::i8, DType::f32, {rows, cols}, {rows, cols / block_of(f, cols)}};
    case FewBits::int4:
      return {DType::i32, DType::f32, {rows, cols / nibbles}, {rows, cols / block_of(f, cols)}};
    case FewBits::fp8:
      return {DType::f8_e4m3,
              DType::f32,
              {rows, cols},
              {pieces(rows, fp8_block), pieces(cols, fp8_block)}};
    case FewBits::mxfp4:
      return {DType::u8, DType::u8, {rows, cols / 2}, {rows, cols / mx_block}};
  }
  throw Error(Exit::bug, "a format of few bits has no shape");
}

Encoded encoded(const FewBitsFormat& f, View<const float> w) {
  const Shape s = shape_of(f, w.rows, w.cols);
  Encoded out{Tensor(s.numbers, s.number_dims), Tensor(s.scales, s.scale_dims)};
  if (f.kind == FewBits::mxfp4)
    store_mx(w, out);
  else if (f.kind == FewBits::fp8)
    store_fp8(w, out);
  else
    store_whole(f, w, out);
  return out;
}

MOE_SIMD void decode_bytes(const std::int8_t* from, float scale, float* to, Index n) {
  for (Index i = 0; i < n; ++i)
    to[i] = scale * float(from[i]);
}
MOE_SIMD void decode_nibbles(const std::uint8_t* from, float scale, float* to, Index pairs) {
  for (Index i = 0; i < pairs; ++i) {
    to[2 * i] = scale * float(int(from[i] & 15) - 8);
    to[2 * i + 1] = scale * float(int(from[i] >> 4) - 8);
  }
}
// Twice the number of e2m1: 0 1 2 3 4 6 8 12.
MOE_INLINE int twice_e2m1(int code) {
  const int exponent = code >> 1 & 3;
  const int mantissa = code & 1;
  const int size = exponent == 0 ? mantissa : (2 + mantissa) << (exponent - 1);
  return code & 8 ? -size : size;
}
MOE_SIMD void decode_mx(const std::uint8_t* from, float half_scale, float* to, Index pairs) {
  for (Index i = 0; i < pairs; ++i) {
    to[2 * i] = half_scale * float(twice_e2m1(from[i] & 15));
    to[2 * i + 1] = half_scale * float(twice_e2m1(from[i] >> 4));
  }
}

}  // namespace

std::vector<std::string> few_bits_names() {
  std::vector<std::string> out;
  for (const Named& k : kinds)
    out.emplace_back(k.name);
  return out;
}

FewBitsFormat few_bits_format(const std::string& text) {
  Spec spec(text);
  const auto found = std::ranges::find(kinds, spec.name(), &Named::name);
  if (found == kinds.end())
    no_such("format of few bits", spec.name(), few_bits_names());
  FewBitsFormat out{.kind = found->kind};
  if (out.kind == FewBits::int8)
    out.block = spec.get("block", 0, 0);
  if (out.kind == FewBits::int4)
    out.block = spec.get("block", 32, 0);
  spec.done();
  return out;
}

std::string text_of(const FewBitsFormat& f) {
  const std::string name(std::ranges::find(kinds, f.kind, &Named::kind)->name);
  const bool usual = f.kind == FewBits::int4 ? f.block == 32 : f.block == 0;
  return usual ? name : concat(name, ":block=", f.block);
}

std::string cannot_hold(const FewBitsFormat& f, Index rows, Index cols) {
  if (rows * cols == 0)
    return "it is empty";
  const auto indivisible = [&](Index by) {
    return cols % by != 0 ? concat("its rows of ", cols, " numbers do not divide by ", by) : "";
  };
  switch (f.kind) {
    case FewBits::int8:
      return indivisible(block_of(f, cols));
    case FewBits::int4:
      return cols % nibbles != 0 ? indivisible(nibbles) : indivisible(block_of(f, cols));
    case FewBits::mxfp4:
      return indivisible(mx_block);
    case FewBits::fp8:
      break;
  }
  return "";
}

Index bytes_of(const FewBitsFormat& f, Index rows, Index cols) {
  const Shape s = shape_of(f, rows, cols);
  Index numbers = 0;
  Index scales = 0;
  checked_bytes(s.numbers, s.number_dims, numbers);
  checked_bytes(s.scales, s.scale_dims, scales);
  return numbers + scales + (f.kind == FewBits::int4 ? 2 * Index(sizeof(std::int64_t)) : 0);
}

std::vector<NamedTensor> in_few_bits(const NamedTensor& matrix, const FewBitsFormat& f) {
  const Index rows = matrix.dims.at(0);
  const Index cols = matrix.dims.at(1);
  const Shape s = shape_of(f, rows, cols);
  const auto make = [make = matrix.make, f] {
    const Tensor numbers = make();
    return encoded(f, numbers.view<float>());
  };
  const bool packed = f.kind == FewBits::int4 || f.kind == FewBits::mxfp4;
  const char* scale = f.kind == FewBits::fp8 ? "_scale_inv" : "_scale";
  std::vector<NamedTensor> out;
  out.emplace_back(matrix.name + (packed ? "_packed" : ""), s.numbers, s.number_dims,
                   [make] { return make().numbers; });
  out.emplace_back(matrix.name + scale, s.scales, s.scale_dims, [make] { return make().scales; });
  if (f.kind == FewBits::int4) {
    out.emplace_back(matrix.name + "_shape", DType::i64, Dims{2}, [rows, cols] {
      Tensor shape(DType::i64, {2});
      const auto to = shape.mutable_view<std::int64_t>();
      to.data[0] = rows;
      to.data[1] = cols;
      return shape;
    });
  }
  return out;
}

float scale_of(const FewBitsRow& row, Index i) {
  if (row.scale_type == DType::f32) {
    float v = 0;
    std::memcpy(&v, row.scales + i * Index(sizeof v), sizeof v);
    return v;
  }
  std::uint16_t v = 0;
  std::memcpy(&v, row.scales + i * Index(sizeof v), sizeof v);
  return row.scale_type == DType::bf16 ? bf16_to_float(v) : f16_to_float(v);
}

void decode_row(const FewBitsFormat& f, const FewBitsRow& row, std::span<float> out) {
  const auto cols = Index(out.size());
  if (f.kind == FewBits::mxfp4) {
    for (Index b = 0; b < cols / mx_block; ++b) {
      const auto code = std::to_integer<std::uint8_t>(row.scales[b]);
      decode_mx(reinterpret_cast<const std::uint8_t*>(row.numbers) + b * mx_block / 2,
                power(code) / 2, out.data() + b * mx_block, mx_block / 2);
    }
    return;
  }
  const Index block = block_of(f, cols);
  for (Index b = 0; b < cols / block; ++b) {
    const float scale = scale_of(row, b);
    float* to = out.data() + b * block;
    if (f.kind == FewBits::int8)
      decode_bytes(reinterpret_cast<const std::int8_t*>(row.numbers) + b * block, scale, to, block);
    else
      decode_nibbles(reinterpret_cast<const std::uint8_t*>(row.numbers) + b * block / 2, scale, to,
                     block / 2);
  }
}

void round_to(const FewBitsFormat& f, View<float> w) {
  const Encoded s = encoded(f, w);
  if (f.kind == FewBits::fp8) {
    const auto* numbers = reinterpret_cast<const std::uint8_t*>(s.numbers.bytes().data());
    const View<const float> scales = s.scales.view<float>();
    for (Index r = 0; r < w.rows; ++r) {
      for (Index c = 0; c < w.cols; ++c) {
        w(r, c) = f8_to_float(DType::f8_e4m3, numbers[r * w.cols + c]) *
                  scales(r / fp8_block, c / fp8_block);
      }
    }
    return;
  }
  const auto row_bytes = [&](const Tensor& t) {
    return std::ptrdiff_t(t.bytes().size()) / w.rows;
  };
  for (Index r = 0; r < w.rows; ++r) {
    decode_row(f,
               {s.numbers.bytes().data() + r * row_bytes(s.numbers),
                s.scales.bytes().data() + r * row_bytes(s.scales), s.scales.dtype()},
               w.row(r));
  }
}

}  // namespace moe
