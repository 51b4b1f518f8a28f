// Sums of products with rows of activations that were rounded to 8 bits (byte_rows.h), for one
// level of processors: see lanes.h. Products and their sums within a block are whole numbers, so
// nothing is rounded there; blocks are then scaled and added in f32, in eight lanes, in the same
// order on every level.
#pragma once
#include "lib/checkpoint/quant/byte_dots_table.h"
#include "lib/checkpoint/quant/lanes.h"

namespace moe::quant {
inline namespace MOE_LEVEL {

struct ByteSums {
  __m256 part[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                    _mm256_setzero_ps()};
  float all() const {
    return total((part[0] + part[2]) + (part[1] + part[3]));
  }
};

inline __m256i ints_at(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// sum + products of 32 numbers 0..255 with 32 of -127..127, four to a lane. Without VNNI the sums
// of two neighbours are kept in 16 bits: the callers' numbers are at most 128 where that is so.
inline __m256i add_quads(__m256i sum, __m256i a, __m256i b) {
#ifdef __AVX512VNNI__
  return _mm256_dpbusd_epi32(sum, a, b);
#else
  const __m256i pairs = _mm256_maddubs_epi16(a, b);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
// The same of signed numbers: sizes times what has the sign of the product.
inline __m256i signed_quads(__m256i a, __m256i b) {
  return add_quads(_mm256_setzero_si256(), _mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
}

// A float16 number in every lane.
inline __m256 halves(const Byte* p) {
  short bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm256_cvtph_ps(_mm_set1_epi16(bits));
}

inline __m256 scaled(__m256i sums, __m256 scale, __m256 to) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, to);
}

inline float q8_0_byte_dot(const Byte* w, const ByteRow& x, Index n) {
  ByteSums sum;
  in_fours(
      n / 32,
      [&](Index b, __m256& part) {
        const Byte* block = w + 34 * b;
        const __m256 scale = halves(block) * _mm256_set1_ps(x.scale[b]);
        part = scaled(signed_quads(ints_at(block + 2), ints_at(x.number + 32 * b)), scale, part);
      },
      sum);
  return sum.all();
}

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

inline float q4_0_byte_dot(const Byte* w, const ByteRow& x, Index n) {
  ByteSums sum;
  in_fours(
      n / 32,
      [&](Index b, __m256& part) {
        const Byte* block = w + 18 * b;
        const __m256 scale = halves(block) * _mm256_set1_ps(x.scale[b]);
        part = scaled(less_eight(nibbles(bytes_at(block + 2)), x, b), scale, part);
      },
      sum);
  return sum.all();
}

// A block is d scale_j q - m min_j in its eight parts j.
inline float q4_k_byte_dot(const Byte* w, const ByteRow& x, Index n) {
  ByteSums sum;
  __m256 minima = _mm256_setzero_ps();
  const __m256i low = _mm256_set1_epi8(15);
  for (Index b = 0; b < n / 32; b += 8, w += 144) {
    const SixBits bits = six_bits_of(w + 4);
    const __m256 of_x = _mm256_loadu_ps(x.scale + b);
    alignas(32) float scale[8];
    _mm256_store_ps(scale, halves(w) * eight_floats(bits.scale) * of_x);
    const __m256 sums = _mm256_cvtepi32_ps(ints_at(x.sum + b)) * of_x;
    minima = _mm256_fmadd_ps(halves(w + 2) * eight_floats(bits.min), sums, minima);
    for (int pair = 0; pair < 4; ++pair) {
      const __m256i q = ints_at(w + 16 + 32 * pair);
      const std::int8_t* from = x.number + 32 * (b + 2 * pair);
      const __m256i zero = _mm256_setzero_si256();
      const __m256i first = add_quads(zero, _mm256_and_si256(q, low), ints_at(from));
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(q, 4), low);
      const __m256i second = add_quads(zero, high, ints_at(from + 32));
      __m256& part = sum.part[pair];
      part = scaled(first, _mm256_set1_ps(scale[2 * pair]), part);
      part = scaled(second, _mm256_set1_ps(scale[2 * pair + 1]), part);
    }
  }
  return sum.all() - total(minima);
}

// Numbers 32 t .. 32 t + 31 of 128: four low bits, and two high ones at bit 2 t of their bytes.
template <int t>
inline __m256i six_bit_numbers(const Byte* low, const Byte* high) {
  const __m256i q = ints_at(low + t % 2 * 32);
  const __m256i four = _mm256_and_si256(t < 2 ? q : _mm256_srli_epi16(q, 4), _mm256_set1_epi8(15));
  const __m256i bits = ints_at(high);
  const __m256i moved =
      t < 2 ? _mm256_slli_epi16(bits, 4 - 2 * t % 4) : _mm256_srli_epi16(bits, 2 * t % 4);
  return _mm256_or_si256(four, _mm256_and_si256(moved, _mm256_set1_epi8(0x30)));
}
template <int t>
inline __m256 six_bit_sum(__m256 sum, const Byte* low, const Byte* high, __m256 scales,
                          const std::int8_t* x) {
  const __m256i quads =
      add_quads(_mm256_setzero_si256(), six_bit_numbers<t>(low, high), ints_at(x + 32 * t));
  constexpr int a = 2 * t;
  constexpr int b = 2 * t + 1;
  const __m256i order = _mm256_setr_epi32(a, a, a, a, b, b, b, b);
  return scaled(quads, _mm256_permutevar8x32_ps(scales, order), sum);
}

// Eight of the sixteen scales of a block.
inline __m256 signed_scales(const Byte* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// A block is d scale_p (q - 32) in its sixteen parts p.
inline float q6_k_byte_dot(const Byte* w, const ByteRow& x, Index n) {
  ByteSums sum;
  __m256 offsets = _mm256_setzero_ps();
  const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  for (Index b = 0; b < n / 32; b += 8, w += 210) {
    for (int half_block = 0; half_block < 2; ++half_block) {
      const Index first = b + 4 * half_block;
      const Byte* low = w + 64 * half_block;
      const Byte* high = w + 128 + 32 * half_block;
      const __m256 scale = halves(w + 208) * signed_scales(w + 192 + 8 * half_block);
      offsets = _mm256_fmadd_ps(scale, _mm256_loadu_ps(x.scaled_half + 2 * first), offsets);
      const __m256 of_x = _mm256_castps128_ps256(_mm_loadu_ps(x.scale + first));
      const __m256 both = scale * _mm256_permutevar8x32_ps(of_x, twice);
      const std::int8_t* from = x.number + 32 * first;
      sum.part[0] = six_bit_sum<0>(sum.part[0], low, high, both, from);
      sum.part[1] = six_bit_sum<1>(sum.part[1], low, high, both, from);
      sum.part[2] = six_bit_sum<2>(sum.part[2], low, high, both, from);
      sum.part[3] = six_bit_sum<3>(sum.part[3], low, high, both, from);
    }
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
