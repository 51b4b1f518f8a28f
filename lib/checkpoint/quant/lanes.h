// Sixteen floats of one register (AVX-512) or two (AVX2 with FMA and F16C), the same arithmetic in
// both. For files that are compiled for such a processor alone (dots_v3.cpp, dots_v4.cpp): they
// include nothing whose code the rest of the program could share.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace moe::quant {
inline namespace MOE_LEVEL {

using Index = std::ptrdiff_t;
using Byte = std::uint8_t;

#ifdef __AVX512F__
using Register = __m512;
#else
struct Register {
  __m256 low, high;
};
#endif

struct Lanes {
  Register v;
};

#ifdef __AVX512F__

inline Lanes zeros() {
  return {_mm512_setzero_ps()};
}
inline Lanes all(float x) {
  return {_mm512_set1_ps(x)};
}
inline Lanes load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline void store(Lanes a, float* p) {
  _mm512_storeu_ps(p, a.v);
}
inline Lanes from_bytes(__m128i q) {  // signed
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q))};
}
inline Lanes from_half(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
inline Lanes from_brain(const void* p) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
}
inline Lanes operator*(Lanes a, Lanes b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline Lanes operator+(Lanes a, Lanes b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline Lanes add_product(Lanes a, Lanes b, Lanes sum) {  // a b + sum, rounded once
  return {_mm512_fmadd_ps(a.v, b.v, sum.v)};
}
inline __m256 folded(Lanes a) {  // the upper half added to the lower
  return _mm256_add_ps(_mm512_castps512_ps256(a.v),
                       _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1)));
}

#else

inline Lanes zeros() {
  return {{_mm256_setzero_ps(), _mm256_setzero_ps()}};
}
inline Lanes all(float x) {
  return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}};
}
inline Lanes load(const float* p) {
  return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}};
}
inline void store(Lanes a, float* p) {
  _mm256_storeu_ps(p, a.v.low);
  _mm256_storeu_ps(p + 8, a.v.high);
}
inline Lanes from_bytes(__m128i q) {  // signed
  return {{_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
           _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))}};
}
inline Lanes from_half(const void* p) {
  const auto* h = static_cast<const __m128i*>(p);
  return {{_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))}};
}
inline __m256 brain_part(const __m128i* p) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}
inline Lanes from_brain(const void* p) {
  const auto* h = static_cast<const __m128i*>(p);
  return {{brain_part(h), brain_part(h + 1)}};
}
inline Lanes operator*(Lanes a, Lanes b) {
  return {{_mm256_mul_ps(a.v.low, b.v.low), _mm256_mul_ps(a.v.high, b.v.high)}};
}
inline Lanes operator+(Lanes a, Lanes b) {
  return {{_mm256_add_ps(a.v.low, b.v.low), _mm256_add_ps(a.v.high, b.v.high)}};
}
inline Lanes add_product(Lanes a, Lanes b, Lanes sum) {  // a b + sum, rounded once
  return {{_mm256_fmadd_ps(a.v.low, b.v.low, sum.v.low),
           _mm256_fmadd_ps(a.v.high, b.v.high, sum.v.high)}};
}
inline __m256 folded(Lanes a) {  // the upper half added to the lower
  return _mm256_add_ps(a.v.low, a.v.high);
}

#endif

// Of all lanes: halves are added until one is left.
inline float total(__m256 eight) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float total(Lanes a) {
  return total(folded(a));
}

// Partial sums of a row.
struct Sums {
  Lanes part[4] = {zeros(), zeros(), zeros(), zeros()};
  float all() const {
    return total((part[0] + part[2]) + (part[1] + part[3]));
  }
};

// Block b of `count` adds to part b % 4 of four partial sums, so many that no addition waits for
// the one before: named one by one, since sums in an array that is indexed go through memory.
template <class Sums, class Add>
inline void in_fours(Index count, const Add& add, Sums& sum) {
  Index b = 0;
  for (; b + 4 <= count; b += 4) {
    add(b, sum.part[0]);
    add(b + 1, sum.part[1]);
    add(b + 2, sum.part[2]);
    add(b + 3, sum.part[3]);
  }
  if (b < count)
    add(b, sum.part[0]);
  if (b + 1 < count)
    add(b + 1, sum.part[1]);
  if (b + 2 < count)
    add(b + 2, sum.part[2]);
}

// Asks for what comes a page later. Blocks whose numbers take longer than their reading hide part
// of it so: the processor's own prefetching ends with a page.
constexpr int line = 64;  // bytes
inline void fetch_ahead(const Byte* p) {
  constexpr int page = 4096;
  _mm_prefetch(reinterpret_cast<const char*>(p) + page, _MM_HINT_T0);
}

// Rows that lie one behind the other, `bytes` for each `numbers`, with one row of activations.
template <class X, float (*dot)(const Byte*, X, Index), int bytes, int numbers>
void rows(const std::byte* w, X x, float* y, Index count, Index n) {
  const Index step = n / numbers * bytes;
  for (Index r = 0; r < count; ++r)
    y[r] = dot(reinterpret_cast<const Byte*>(w) + r * step, x, n);
}

// Sixteen bytes, as they are and cut up.
inline __m128i bytes_at(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
inline __m128i low_nibbles(__m128i q) {
  return _mm_and_si128(q, _mm_set1_epi8(15));
}
inline __m128i high_nibbles(__m128i q) {
  return _mm_and_si128(_mm_srli_epi16(q, 4), _mm_set1_epi8(15));
}
inline __m128i minus(__m128i q, char n) {
  return _mm_sub_epi8(q, _mm_set1_epi8(n));
}

// A float16 number.
inline float half(const Byte* p) {
  return _cvtsh_ss(static_cast<unsigned short>(p[0] | p[1] << 8));
}

// Scales and minima of the eight parts of a block of Q4_K, a byte each: six bits each in 12 bytes,
// four of each kind lowest, and the upper two bits of those behind them above them.
struct SixBits {
  std::uint64_t scale, min;
};
inline SixBits six_bits_of(const Byte* packed) {
  std::uint32_t s[3];
  std::memcpy(s, packed, sizeof s);
  const std::uint64_t scale = (s[2] & 0x0f0f0f0fu) | (s[0] >> 2 & 0x30303030u);
  const std::uint64_t min = (s[2] >> 4 & 0x0f0f0f0fu) | (s[1] >> 2 & 0x30303030u);
  return {scale << 32 | (s[0] & 0x3f3f3f3fu), min << 32 | (s[1] & 0x3f3f3f3fu)};
}
inline __m256 eight_floats(std::uint64_t unsigned_bytes) {
  const __m128i bytes = _mm_cvtsi64_si128(static_cast<long long>(unsigned_bytes));
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

}  // namespace MOE_LEVEL
}  // namespace moe::quant
