// The sums of dots.h for one level of processors: see lanes.h.
#pragma once
#include <cstddef>
#include <cstdint>

#include "lib/checkpoint/quant/dots_table.h"
#include "lib/checkpoint/quant/lanes.h"

namespace moe::quant {
inline namespace MOE_LEVEL {

// Numbers without scales, in the order of sums of the cpu backend's own rows (loops::row_dots).
// Rows may end inside sixteen.
template <Lanes (*read)(const void*), int bytes>
inline float plain_dot(const Byte* w, const float* x, Index n) {
  Sums sum;
  Index i = 0;
  for (; i + 64 <= n; i += 64) {
    for (int j = 0; j < 4; ++j) {
      const Index at = i + 16 * j;
      sum.part[j] = add_product(read(w + bytes * at), load(x + at), sum.part[j]);
    }
  }
  // parts are named, since sums in an array that is indexed go through memory
  const auto last = [&](Lanes& part) {
    if (i + 16 <= n) {
      part = add_product(read(w + bytes * i), load(x + i), part);
    } else if (i < n) {
      Byte rest[16 * bytes] = {};
      float y[16] = {};
      std::memcpy(rest, w + bytes * i, std::size_t(bytes * (n - i)));
      std::memcpy(y, x + i, sizeof(float) * std::size_t(n - i));
      part = add_product(read(rest), load(y), part);
    }
    i += 16;
  };
  if (i < n) {
    last(sum.part[0]);
    last(sum.part[1]);
    last(sum.part[2]);
    last(sum.part[3]);
  }
  return sum.all();
}
inline Lanes from_floats(const void* p) {
  return load(static_cast<const float*>(p));
}

using BrainRows = void(const std::byte* w, const float* x, float* y, Index count, Index n);
constexpr BrainRows& plain_brain_rows = rows<const float*, plain_dot<from_brain, 2>, 2, 1>;

#ifdef __AVX512F__

// Of 64 bytes, 32 bfloat16 numbers: the even ones are widened by a shift, the odd ones by a mask,
// and each is multiplied with its number of x, whose even ones stand before the odd ones. Whole
// lines are read so, half again as fast from memory as in sixteens.
struct BrainSums {
  Lanes even[2] = {zeros(), zeros()};
  Lanes odd[2] = {zeros(), zeros()};

  template <int half>
  void add(const Byte* w, const float* x) {
    const __m512i both = _mm512_loadu_si512(w);
    const __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    const __m512 high = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
    even[half] = add_product({low}, load(x), even[half]);
    odd[half] = add_product({high}, load(x + 16), odd[half]);
  }
  // the sums of plain_dot, number by number
  float all() const {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    Sums sum;
    sum.part[0] = {_mm512_permutex2var_ps(even[0].v, first, odd[0].v)};
    sum.part[1] = {_mm512_permutex2var_ps(even[0].v, second, odd[0].v)};
    sum.part[2] = {_mm512_permutex2var_ps(even[1].v, first, odd[1].v)};
    sum.part[3] = {_mm512_permutex2var_ps(even[1].v, second, odd[1].v)};
    return sum.all();
  }
};

// Of every 32 numbers the even ones, then the odd ones.
inline void even_before_odd(const float* x, float* to, Index n) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (Index i = 0; i < n; i += 32) {
    const __m512 a = load(x + i).v;
    const __m512 b = load(x + i + 16).v;
    store({_mm512_permutex2var_ps(a, even, b)}, to + i);
    store({_mm512_permutex2var_ps(a, odd, b)}, to + i + 16);
  }
}

inline void brain_rows(const std::byte* w, const float* x, float* y, Index count, Index n) {
  constexpr Index widest = 8192;
  if (n % 64 != 0 || n > widest)
    return plain_brain_rows(w, x, y, count, n);
  alignas(64) float parted[widest];
  even_before_odd(x, parted, n);
  for (Index r = 0; r < count; ++r) {
    const Byte* row = reinterpret_cast<const Byte*>(w) + r * 2 * n;
    BrainSums sum;
    for (Index i = 0; i < n; i += 64) {
      sum.add<0>(row + 2 * i, parted + i);
      sum.add<1>(row + 2 * i + 64, parted + i + 32);
    }
    y[r] = sum.all();
  }
}

#else

constexpr BrainRows& brain_rows = plain_brain_rows;

#endif

// Sums of 32 numbers q x.
inline Lanes products(__m128i low, __m128i high, const float* x) {
  return add_product(from_bytes(high), load(x + 16), from_bytes(low) * load(x));
}

inline float q8_0_dot(const Byte* w, const float* x, Index n) {
  Sums sum;
  in_fours(
      n / 32,
      [&](Index b, Lanes& part) {
        const Byte* block = w + 34 * b;
        fetch_ahead(block);
        const Lanes some = products(bytes_at(block + 2), bytes_at(block + 18), x + 32 * b);
        part = add_product(all(half(block)), some, part);
      },
      sum);
  return sum.all();
}

inline float q4_0_dot(const Byte* w, const float* x, Index n) {
  Sums sum;
  in_fours(
      n / 32,
      [&](Index b, Lanes& part) {
        const Byte* block = w + 18 * b;
        const __m128i q = bytes_at(block + 2);
        const Lanes some =
            products(minus(low_nibbles(q), 8), minus(high_nibbles(q), 8), x + 32 * b);
        part = add_product(all(half(block)), some, part);
      },
      sum);
  return sum.all();
}

// 32 numbers scale q - min.
inline Lanes part_products(Lanes sum, __m128i low, __m128i high, float scale, float min,
                           const float* x) {
  sum = add_product(all(scale), products(low, high, x), sum);
  return add_product(all(-min), load(x) + load(x + 16), sum);
}

inline float q4_k_dot(const Byte* w, const float* x, Index n) {
  Sums sum;
  for (Index i = 0; i < n; i += 256, w += 144) {
    const SixBits bits = six_bits_of(w + 4);
    float scale[8];
    float min[8];
    _mm256_storeu_ps(scale, _mm256_set1_ps(half(w)) * eight_floats(bits.scale));
    _mm256_storeu_ps(min, _mm256_set1_ps(half(w + 2)) * eight_floats(bits.min));
    for (int pair = 0; pair < 4; ++pair) {
      const __m128i a = bytes_at(w + 16 + 32 * pair);
      const __m128i b = bytes_at(w + 32 + 32 * pair);
      const float* from = x + i + 64 * pair;
      const int j = 2 * pair;
      Lanes& part = sum.part[pair];
      part = part_products(part, low_nibbles(a), low_nibbles(b), scale[j], min[j], from);
      part = part_products(part, high_nibbles(a), high_nibbles(b), scale[j + 1], min[j + 1],
                           from + 32);
    }
  }
  return sum.all();
}

// Four low bits and two high ones, the latter at bit 2 t of their bytes.
template <int t>
inline __m128i six_bits(__m128i low, __m128i high) {
  const __m128i two = _mm_and_si128(_mm_srli_epi16(high, 2 * t), _mm_set1_epi8(3));
  return minus(_mm_or_si128(low, _mm_slli_epi16(two, 4)), 32);
}

// Numbers 32 t .. 32 t + 31 of 128, with two scales.
template <int t>
inline Lanes six_bit_part(Lanes sum, const Byte* low, const Byte* high, const float* scale,
                          const float* x) {
  __m128i q[2];
  for (int h = 0; h < 2; ++h) {
    const __m128i packed = bytes_at(low + t % 2 * 32 + 16 * h);
    q[h] = six_bits<t>(t < 2 ? low_nibbles(packed) : high_nibbles(packed), bytes_at(high + 16 * h));
  }
  x += 32 * t;
  sum = add_product(all(scale[2 * t]), from_bytes(q[0]) * load(x), sum);
  return add_product(all(scale[2 * t + 1]), from_bytes(q[1]) * load(x + 16), sum);
}

inline float q6_k_dot(const Byte* w, const float* x, Index n) {
  Sums sum;
  for (Index i = 0; i < n; i += 256, w += 210) {
    float scales[16];
    store(from_bytes(bytes_at(w + 192)) * all(half(w + 208)), scales);
    for (int part = 0; part < 2; ++part) {
      const Byte* low = w + 64 * part;
      const Byte* high = w + 128 + 32 * part;
      const float* scale = scales + 8 * part;
      const float* from = x + i + 128 * part;
      sum.part[0] = six_bit_part<0>(sum.part[0], low, high, scale, from);
      sum.part[1] = six_bit_part<1>(sum.part[1], low, high, scale, from);
      sum.part[2] = six_bit_part<2>(sum.part[2], low, high, scale, from);
      sum.part[3] = six_bit_part<3>(sum.part[3], low, high, scale, from);
    }
  }
  return sum.all();
}

// Signed bytes, a scale for each 32 of them.
inline float int8_dot(const Byte* w, const float* scale, const float* x, Index n) {
  Sums sum;
  in_fours(
      n / 32,
      [&](Index b, Lanes& part) {
        const Index i = 32 * b;
        const Lanes some = products(bytes_at(w + i), bytes_at(w + i + 16), x + i);
        part = add_product(all(scale[b]), some, part);
      },
      sum);
  return sum.all();
}

// The same of halves of bytes, the low one first, 8 more than they are.
inline float int4_dot(const Byte* w, const float* scale, const float* x, Index n) {
  Sums sum;
  in_fours(
      n / 32,
      [&](Index b, Lanes& part) {
        const __m128i q = bytes_at(w + 16 * b);
        const __m128i low = low_nibbles(q);
        const __m128i high = high_nibbles(q);
        const Lanes some = products(minus(_mm_unpacklo_epi8(low, high), 8),
                                    minus(_mm_unpackhi_epi8(low, high), 8), x + 32 * b);
        part = add_product(all(scale[b]), some, part);
      },
      sum);
  return sum.all();
}

constexpr DotsTable table = {
    rows<const float*, plain_dot<from_floats, 4>, 4, 1>,
    brain_rows,
    rows<const float*, plain_dot<from_half, 2>, 2, 1>,
    rows<const float*, q8_0_dot, 34, 32>,
    rows<const float*, q4_0_dot, 18, 32>,
    rows<const float*, q4_k_dot, 144, 256>,
    rows<const float*, q6_k_dot, 210, 256>,
    int8_dot,
    int4_dot,
};

}  // namespace MOE_LEVEL
}  // namespace moe::quant
