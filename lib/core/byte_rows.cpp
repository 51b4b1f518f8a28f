// Vectorised in every build type, and without fused multiplications, so that all levels of
// processors give the same bytes.
#include "lib/core/byte_rows.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "lib/core/clones.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr float least = 0x1p-100f;
constexpr std::uint32_t infinity = 0x7f800000;

// Added to a float of a few bits, it leaves the nearest whole number in the last ones.
constexpr float rounder = 0x1.8p23f;

struct Block {
  float scale;
  std::int32_t half[2];
};

MOE_INLINE Block round_block(const float* __restrict x, std::int8_t* __restrict q) {
  std::uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < byte_block; ++i) {
    const std::uint32_t size = std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu;
    largest = largest < size ? size : largest;
  }
  const float top = std::bit_cast<float>(largest);
  const bool finite = largest < infinity;
  const bool whole = finite && top >= least;
  const float inverse = whole ? 127.0f / top : 0.0f;
  const std::int32_t kept = whole ? -1 : 0;
  Block out{whole ? top / 127.0f : finite ? 0.0f : std::numeric_limits<float>::quiet_NaN(), {0, 0}};
  for (int h = 0; h < 2; ++h) {
    std::int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < byte_block / 2; ++i) {
      const float near = x[16 * h + i] * inverse + rounder;
      const std::int32_t number =
          (std::bit_cast<std::int32_t>(near) - std::bit_cast<std::int32_t>(rounder)) & kept;
      q[16 * h + i] = static_cast<std::int8_t>(number);
      sum += number;
    }
    out.half[h] = sum;
  }
  return out;
}

MOE_SIMD void round_row(const float* __restrict x, Index blocks, std::int8_t* __restrict q,
                        float* __restrict scale, std::int32_t* __restrict sum,
                        float* __restrict half) {
  for (Index b = 0; b < blocks; ++b) {
    const Block found = round_block(x + byte_block * b, q + byte_block * b);
    scale[b] = found.scale;
    sum[b] = found.half[0] + found.half[1];
    half[2 * b] = found.scale * float(found.half[0]);
    half[2 * b + 1] = found.scale * float(found.half[1]);
  }
}

MOE_SIMD void replace_row(const float* x, Index blocks, float* out) {
  std::int8_t q[byte_block];
  for (Index b = 0; b < blocks; ++b) {
    const float scale = round_block(x + byte_block * b, q).scale;
    for (int i = 0; i < byte_block; ++i)
      out[byte_block * b + i] = scale * float(q[i]);
  }
}

Index blocks_of(View<const float> x) {
  if (x.cols % byte_block != 0)
    throw Error(Exit::bug, concat("rows of ", x.cols, " numbers are no whole blocks of bytes"));
  return x.cols / byte_block;
}

}  // namespace

ByteRows::ByteRows(View<const float> x)
    : cols_(x.cols),
      numbers_(std::size_t(x.size())),
      scales_(std::size_t(x.rows * blocks_of(x))),
      halves_(2 * scales_.size()),
      sums_(scales_.size()) {
  const Index blocks = blocks_of(x);
  for (Index t = 0; t < x.rows; ++t) {
    round_row(x.row(t).data(), blocks, numbers_.data() + t * cols_, scales_.data() + t * blocks,
              sums_.data() + t * blocks, halves_.data() + 2 * t * blocks);
  }
}

ByteRow ByteRows::row(Index t) const {
  const Index block = t * (cols_ / byte_block);
  return {numbers_.data() + t * cols_, scales_.data() + block, sums_.data() + block,
          halves_.data() + 2 * block};
}

void rounded_to_bytes(View<const float> x, View<float> out) {
  const Index blocks = blocks_of(x);
  for (Index t = 0; t < x.rows; ++t)
    replace_row(x.row(t).data(), blocks, out.row(t).data());
}

}  // namespace moe
