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

constexpr float least = 0x1p-90f;
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

// Where what is kept of a row goes (byte_row.h).
struct RoundedRow {
  std::int8_t* __restrict number;
  float* __restrict scale;
  std::int32_t* __restrict sum;
  float* __restrict scaled_half;
  float* __restrict scaled_sum;
  float* __restrict pair_scale;
  float* __restrict nibble_scale;
  std::int32_t* __restrict nibble_offset;
};

MOE_SIMD void round_row(const float* __restrict x, Index blocks, RoundedRow to) {
  for (Index b = 0; b < blocks; ++b) {
    const Block found = round_block(x + byte_block * b, to.number + byte_block * b);
    const std::int32_t sum = found.half[0] + found.half[1];
    const float sixteenth = found.scale / 16;
    to.scale[b] = found.scale;
    to.sum[b] = sum;
    to.scaled_half[2 * b] = found.scale * float(found.half[0]);
    to.scaled_half[2 * b + 1] = found.scale * float(found.half[1]);
    to.scaled_sum[b] = found.scale * float(sum);
    to.pair_scale[b] = b % 2 == 0 ? found.scale : sixteenth;
    for (int i = 0; i < 4; ++i) {
      to.nibble_scale[8 * b + i] = found.scale;
      to.nibble_scale[8 * b + 4 + i] = sixteenth;
      to.nibble_offset[8 * b + i] = -sum;
      to.nibble_offset[8 * b + 4 + i] = -16 * sum;
    }
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
      floats_(std::size_t(x.rows * blocks_of(x) * floats_a_block)),
      ints_(std::size_t(x.rows * blocks_of(x) * ints_a_block)) {
  const Index blocks = blocks_of(x);
  for (Index t = 0; t < x.rows; ++t) {
    float* const floats = floats_.data() + t * blocks * floats_a_block;
    std::int32_t* const ints = ints_.data() + t * blocks * ints_a_block;
    round_row(x.row(t).data(), blocks,
              {numbers_.data() + t * cols_, floats, ints, floats + blocks, floats + 3 * blocks,
               floats + 4 * blocks, floats + 5 * blocks, ints + blocks});
  }
}

ByteRow ByteRows::row(Index t) const {
  const Index blocks = cols_ / byte_block;
  const float* const floats = floats_.data() + t * blocks * floats_a_block;
  const std::int32_t* const ints = ints_.data() + t * blocks * ints_a_block;
  return {numbers_.data() + t * cols_,
          floats,
          ints,
          floats + blocks,
          floats + 3 * blocks,
          floats + 4 * blocks,
          floats + 5 * blocks,
          ints + blocks};
}

void rounded_to_bytes(View<const float> x, View<float> out) {
  const Index blocks = blocks_of(x);
  for (Index t = 0; t < x.rows; ++t)
    replace_row(x.row(t).data(), blocks, out.row(t).data());
}

}  // namespace moe
