// Formats of 256 numbers a block whose parts of 16 or 32 numbers have scales of their own
// ("K-quants" and what came after them), and the ternary ones.
#include "lib/checkpoint/quant/blocks.h"

namespace moe::quant {
namespace {

constexpr int numbers = 256;

// Two bits of number n: 128 numbers lie in 32 bytes, 32 of them at the same place of each byte.
int two_bits(const Byte* q, int n) {
  const int t = n % 128 / 32;
  return q[n / 128 * 32 + n % 32] >> (2 * t) & 3;
}

// Six bits of part j of 16 in 12 bytes, from -32 on.
int q3_scale(const Byte* s, int j) {
  const int low = s[j % 8] >> (4 * (j / 8)) & 15;
  const int high = s[8 + j % 4] >> (2 * (j / 4)) & 3;
  return (low | high << 4) - 32;
}

// Digit n of the base 3 fraction x / 256, minus 1.
int ternary(Byte x, int n) {
  constexpr int power[5] = {1, 3, 9, 27, 81};
  const int shifted = x * power[n] & 255;
  return (shifted * 3 >> 8) - 1;
}

// `digits` of each of `bytes` bytes, the digit outside; returns where the next number goes.
float* ternary_digits(const Byte* from, int bytes, int digits, float d, float* out) {
  for (int n = 0; n < digits; ++n) {
    for (int i = 0; i < bytes; ++i)
      *out++ = d * float(ternary(from[i], n));
  }
  return out;
}

}  // namespace

// 16 scales beside minima, two bits each, d, m
void q2_k(const Byte* from, float* out) {
  const Byte* q = from + 16;
  const float d = half_at(from + 80);
  const float m = half_at(from + 82);
  for (int part = 0; part < 16; ++part) {
    const float scale = d * float(from[part] & 15);
    const float min = m * float(from[part] >> 4);
    for (int n = 16 * part; n < 16 * part + 16; ++n)
      out[n] = scale * float(two_bits(q, n)) - min;
  }
}

// 256 third bits, two bits each, 16 scales, d
void q3_k(const Byte* from, float* out) {
  const Byte* q = from + 32;
  const Byte* s = from + 96;
  const float d = half_at(from + 108);
  for (int part = 0; part < 16; ++part) {
    const float scale = d * float(q3_scale(s, part));
    for (int n = 16 * part; n < 16 * part + 16; ++n) {
      const int high = from[n % 32] >> (n / 32) & 1;
      out[n] = scale * float(two_bits(q, n) - (high ? 0 : 4));
    }
  }
}

// d, m, 8 scales and minima, 256 fifth bits, four bits each
void q5_k(const Byte* from, float* out) {
  const float d = half_at(from);
  const float m = half_at(from + 2);
  const Byte* high = from + 16;
  for (int part = 0; part < 8; ++part) {
    const auto [sc, mn] = scale_and_min(from + 4, part);
    const float scale = d * float(sc);
    const float min = m * float(mn);
    const Byte* q = from + 48 + part / 2 * 32;
    const int shift = 4 * (part % 2);
    for (int l = 0; l < 32; ++l) {
      const int value = (q[l] >> shift & 15) | (high[l] >> part & 1) << 4;
      out[32 * part + l] = scale * float(value) - min;
    }
  }
}

// d, two high bits and four low bits of 8 scales, places in a table
void iq4_xs(const Byte* from, float* out) {
  const float d = half_at(from);
  const int high = u16_at(from + 2);
  for (int part = 0; part < 8; ++part) {
    const int s = nibble(from + 4, part) | (high >> (2 * part) & 3) << 4;
    const float scale = d * float(s - 32);
    const Byte* q = from + 8 + 16 * part;
    for (int j = 0; j < 16; ++j) {
      out[32 * part + j] = scale * float(iq4_values[q[j] & 15]);
      out[32 * part + 16 + j] = scale * float(iq4_values[q[j] >> 4]);
    }
  }
}

// 48 bytes of five digits, 4 bytes of four, d
void tq1_0(const Byte* from, float* out) {
  const float d = half_at(from + 52);
  out = ternary_digits(from, 32, 5, d, out);
  out = ternary_digits(from + 32, 16, 5, d, out);
  ternary_digits(from + 48, 4, 4, d, out);
}

// two bits each, d; d (q - 1)
void tq2_0(const Byte* from, float* out) {
  const float d = half_at(from + 64);
  for (int n = 0; n < numbers; ++n)
    out[n] = d * float(two_bits(from, n) - 1);
}

}  // namespace moe::quant
