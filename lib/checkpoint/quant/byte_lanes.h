// Whole numbers of 8 bits and their products, for one level of processors: see lanes.h. 64 bytes
// are one register with AVX-512, else two; what is made of them is the same.
#pragma once
#include "lib/checkpoint/quant/lanes.h"

namespace moe::quant {
inline namespace MOE_LEVEL {

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

#ifdef __AVX512VNNI__
using WideRegister = __m512i;
#else
struct WideRegister {
  __m256i low, high;
};
#endif

struct Wide {
  WideRegister v;
};

// Of 64 bytes: sums of quads are sixteen floats. Of 128 numbers of six bits, half h has its four
// low bits in halves of 64 bytes, and two high ones in 32 bytes, at bit 4 h of each for the first
// 32 numbers and two above for the others.
#ifdef __AVX512VNNI__

inline Wide wide_at(const void* p) {
  return {_mm512_loadu_si512(p)};
}
// Sums of quads in sixteen lanes.
inline Lanes quads(Wide a, const std::int8_t* x) {
  return {_mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), a.v, wide_at(x).v))};
}
template <int h>
inline Wide six_bit_numbers(const Byte* low, const Byte* high) {
  const __m512i packed = wide_at(low).v;
  const __m512i four = h == 0 ? packed : _mm512_srli_epi16(packed, 4);
  const __m512i two = _mm512_broadcast_i64x4(ints_at(high));
  const __m512i moved = h == 0 ? _mm512_sllv_epi64(two, _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2))
                               : _mm512_srlv_epi64(two, _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2));
  const __m512i lowest = _mm512_set1_epi8(15);
  constexpr int first_where_third = 0xe4;  // bits of the first where the mask has them
  return {_mm512_and_si512(_mm512_ternarylogic_epi64(four, moved, lowest, first_where_third),
                           _mm512_set1_epi8(0x3f))};
}
// Scales 4 part .. 4 part + 3 of sixteen, each in four lanes.
template <int part>
inline Lanes four_of(Lanes scales) {
  const __m512i which = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return {_mm512_permutexvar_ps(_mm512_add_epi32(which, _mm512_set1_epi32(4 * part)), scales.v)};
}
// Eight numbers, each in two lanes.
inline Lanes twice_each(const float* p) {
  const __m512i which = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return {_mm512_permutexvar_ps(which, _mm512_castps256_ps512(_mm256_loadu_ps(p)))};
}
inline Lanes one_half(const Byte* p) {
  short bits;
  std::memcpy(&bits, p, sizeof bits);
  return {_mm512_cvtph_ps(_mm256_set1_epi16(bits))};
}

#else

inline Wide wide_at(const void* p) {
  const auto* from = static_cast<const __m256i*>(p);
  return {{ints_at(from), ints_at(from + 1)}};
}
inline Lanes quads(Wide a, const std::int8_t* x) {
  const Wide b = wide_at(x);
  const __m256i zero = _mm256_setzero_si256();
  return {{_mm256_cvtepi32_ps(add_quads(zero, a.v.low, b.v.low)),
           _mm256_cvtepi32_ps(add_quads(zero, a.v.high, b.v.high))}};
}
template <int shift>  // to the left; to the right where it is negative
inline __m256i two_high_bits(__m256i bits) {
  const __m256i moved =
      shift >= 0 ? _mm256_slli_epi16(bits, shift) : _mm256_srli_epi16(bits, -shift);
  return _mm256_and_si256(moved, _mm256_set1_epi8(0x30));
}
template <int h>
inline Wide six_bit_numbers(const Byte* low, const Byte* high) {
  const Wide packed = wide_at(low);
  const __m256i two = ints_at(high);
  const __m256i lowest = _mm256_set1_epi8(15);
  const __m256i a = h == 0 ? packed.v.low : _mm256_srli_epi16(packed.v.low, 4);
  const __m256i b = h == 0 ? packed.v.high : _mm256_srli_epi16(packed.v.high, 4);
  return {_mm256_or_si256(_mm256_and_si256(a, lowest), two_high_bits < h == 0 ? 4 : 0 > (two)),
          _mm256_or_si256(_mm256_and_si256(b, lowest), two_high_bits < h == 0 ? 2 : -2 > (two))};
}
template <int part>
inline Lanes four_of(Lanes scales) {
  const __m256 eight = part < 2 ? scales.v.low : scales.v.high;
  constexpr int a = part % 2 * 4;
  const __m256i first = _mm256_setr_epi32(a, a, a, a, a + 1, a + 1, a + 1, a + 1);
  const __m256i second = _mm256_add_epi32(first, _mm256_set1_epi32(2));
  return {{_mm256_permutevar8x32_ps(eight, first), _mm256_permutevar8x32_ps(eight, second)}};
}
inline Lanes twice_each(const float* p) {
  const __m256 eight = _mm256_loadu_ps(p);
  const __m256i first = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  const __m256i second = _mm256_add_epi32(first, _mm256_set1_epi32(4));
  return {{_mm256_permutevar8x32_ps(eight, first), _mm256_permutevar8x32_ps(eight, second)}};
}
inline Lanes one_half(const Byte* p) {
  return {{halves(p), halves(p)}};
}

#endif

}  // namespace MOE_LEVEL
}  // namespace moe::quant
