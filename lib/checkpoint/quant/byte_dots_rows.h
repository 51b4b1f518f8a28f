// Sums of products with rows of activations that were rounded to 8 bits (byte_rows.h), for one
// level of processors: see lanes.h. Products and their sums within a block are whole numbers, so
// nothing is rounded there; blocks are then scaled and added in f32, each in eight lanes, in the
// same order on every level.
#pragma once
#include "lib/checkpoint/quant/byte_dots_table.h"
#include "lib/checkpoint/quant/byte_lanes.h"

namespace moe::quant {
inline namespace MOE_LEVEL {

struct ByteSums {
  __m256 part[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                    _mm256_setzero_ps()};
  float all() const {
    return total((part[0] + part[2]) + (part[1] + part[3]));
  }
};

inline __m256 scaled(__m256i sums, __m256 scale, __m256 to) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, to);
}

inline float q8_0_byte_dot(const Byte* w, const ByteRow& x, Index n) {
  ByteSums sum;
  in_fours(
      n / 32,
      [&](Index b, __m256& part) {
        const Byte* block = w + 34 * b;
        fetch_ahead(block);
        const __m256 scale = halves(block) * _mm256_set1_ps(x.scale[b]);
        part = scaled(signed_quads(ints_at(block + 2), ints_at(x.number + 32 * b)), scale, part);
      },
      sum);
  return sum.all();
}

constexpr long long low_halves = 0x0f0f0f0f0f0f0f0f;
constexpr long long high_halves = ~low_halves;

// Low halves of sixteen bytes, then their high ones.
inline __m256i nibbles(__m128i q) {
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

// Of numbers that are 8 more than they stand for: eight lanes, from each of which the sum of the
// other side is taken.
inline __m256i less_eight(__m256i more, const ByteRow& x, Index b) {
  return add_quads(_mm256_set1_epi32(-x.sum[b]), more, ints_at(x.number + 32 * b));
}

// 32 numbers of a block of Q4_0 times those of x, scaled, added to `part`. With VNNI high halves of
// bytes stay where they are, which makes their lanes 16 times as large and their scale a 16th.
inline __m256 four_bit_block(const Byte* block, const ByteRow& x, Index b, __m256 part) {
#ifdef __AVX512VNNI__
  const __m256i from = ints_at(x.number + 32 * b);
  const __m256i both = _mm256_broadcastsi128_si256(bytes_at(block + 2));
  const __m256i masks = _mm256_setr_epi64x(low_halves, low_halves, high_halves, high_halves);
  const __m256i start = ints_at(x.nibble_offset + 8 * b);
  const __m256i sums = add_quads(start, _mm256_and_si256(both, masks), from);
  return scaled(sums, halves(block) * _mm256_loadu_ps(x.nibble_scale + 8 * b), part);
#else
  const __m256i sums = less_eight(nibbles(bytes_at(block + 2)), x, b);
  return scaled(sums, halves(block) * _mm256_set1_ps(x.scale[b]), part);
#endif
}

inline float q4_0_byte_dot(const Byte* w, const ByteRow& x, Index n) {
  ByteSums sum;
  in_fours(
      n / 32,
      [&](Index b, __m256& part) {
        const Byte* block = w + 18 * b;
        if (b % 4 == 0)
          fetch_ahead(block);
        part = four_bit_block(block, x, b, part);
      },
      sum);
  return sum.all();
}

// Parts 2 pair and 2 pair + 1 of a block of Q4_K: low halves of 32 bytes, then their high ones,
// which stay where they are with VNNI.
inline __m256 four_bit_pair(__m256i q, const float* scale, const std::int8_t* x, __m256 part) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i low = _mm256_set1_epi64x(low_halves);
#ifdef __AVX512VNNI__
  const __m256i high = _mm256_and_si256(q, _mm256_set1_epi64x(high_halves));
#else
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(q, 4), low);
#endif
  const __m256i first = add_quads(zero, _mm256_and_si256(q, low), ints_at(x));
  const __m256i second = add_quads(zero, high, ints_at(x + 32));
  part = scaled(first, _mm256_set1_ps(scale[0]), part);
  return scaled(second, _mm256_set1_ps(scale[1]), part);
}

// A block is d scale_j q - m min_j in its eight parts j.
inline float q4_k_byte_dot(const Byte* w, const ByteRow& x, Index n) {
  ByteSums sum;
  __m256 minima = _mm256_setzero_ps();
#ifdef __AVX512VNNI__
  const float* of_x = x.pair_scale;
#else
  const float* of_x = x.scale;
#endif
  for (Index b = 0; b < n / 32; b += 8, w += 144) {
    fetch_ahead(w);
    fetch_ahead(w + line);
    const SixBits bits = six_bits_of(w + 4);
    alignas(32) float scale[8];
    _mm256_store_ps(scale, halves(w) * eight_floats(bits.scale) * _mm256_loadu_ps(of_x + b));
    const __m256 least = halves(w + 2) * eight_floats(bits.min);
    minima = _mm256_fmadd_ps(least, _mm256_loadu_ps(x.scaled_sum + b), minima);
    const Byte* q = w + 16;
    const std::int8_t* from = x.number + 32 * b;
    sum.part[0] = four_bit_pair(ints_at(q), scale, from, sum.part[0]);
    sum.part[1] = four_bit_pair(ints_at(q + 32), scale + 2, from + 64, sum.part[1]);
    sum.part[2] = four_bit_pair(ints_at(q + 64), scale + 4, from + 128, sum.part[2]);
    sum.part[3] = four_bit_pair(ints_at(q + 96), scale + 6, from + 192, sum.part[3]);
  }
  return sum.all() - total(minima);
}

// Numbers 64 part .. 64 part + 63 of a block, four scales.
template <int part>
inline Lanes six_bit_part(const Byte* w, Lanes scales, const std::int8_t* x, Lanes sum) {
  const Wide q = six_bit_numbers<part % 2>(w + part / 2 * 64, w + 128 + part / 2 * 32);
  return add_product(quads(q, x + 64 * part), four_of<part>(scales), sum);
}

// A block is d scale_p (q - 32) in its sixteen parts p.
inline float q6_k_byte_dot(const Byte* w, const ByteRow& x, Index n) {
  Sums sum;
  Lanes offsets = zeros();
  for (Index b = 0; b < n / 32; b += 8, w += 210) {
    const Lanes scale = one_half(w + 208) * from_bytes(bytes_at(w + 192));
    offsets = add_product(scale, load(x.scaled_half + 2 * b), offsets);
    const Lanes both = scale * twice_each(x.scale + b);
    const std::int8_t* from = x.number + 32 * b;
    sum.part[0] = six_bit_part<0>(w, both, from, sum.part[0]);
    sum.part[1] = six_bit_part<1>(w, both, from, sum.part[1]);
    sum.part[2] = six_bit_part<2>(w, both, from, sum.part[2]);
    sum.part[3] = six_bit_part<3>(w, both, from, sum.part[3]);
  }
  return sum.all() - 32 * total(offsets);
}

// Signed bytes, a scale for each 32 of them.
inline float int8_byte_dot(const Byte* w, const float* scale, const ByteRow& x, Index n) {
  ByteSums sum;
  in_fours(
      n / 32,
      [&](Index b, __m256& part) {
        const __m256 both = _mm256_set1_ps(scale[b] * x.scale[b]);
        part = scaled(signed_quads(ints_at(w + 32 * b), ints_at(x.number + 32 * b)), both, part);
      },
      sum);
  return sum.all();
}

// The same of halves of bytes, the low one first, 8 more than they are.
inline float int4_byte_dot(const Byte* w, const float* scale, const ByteRow& x, Index n) {
  ByteSums sum;
  in_fours(
      n / 32,
      [&](Index b, __m256& part) {
        const __m128i q = bytes_at(w + 16 * b);
        const __m128i low = low_nibbles(q);
        const __m128i high = high_nibbles(q);
        const __m256i more = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_unpacklo_epi8(low, high)), _mm_unpackhi_epi8(low, high), 1);
        part = scaled(less_eight(more, x, b), _mm256_set1_ps(scale[b] * x.scale[b]), part);
      },
      sum);
  return sum.all();
}

constexpr ByteDotsTable byte_table = {
    rows<const ByteRow&, q8_0_byte_dot, 34, 32>,
    rows<const ByteRow&, q4_0_byte_dot, 18, 32>,
    rows<const ByteRow&, q4_k_byte_dot, 144, 256>,
    rows<const ByteRow&, q6_k_byte_dot, 210, 256>,
    int8_byte_dot,
    int4_byte_dot,
};

}  // namespace MOE_LEVEL
}  // namespace moe::quant
