// Formats of 32 to 128 numbers a block. Those of four bits keep number j in the low half of byte j
// and number j + 16 in the high half.
#include <cmath>

#include "lib/checkpoint/quant/blocks.h"

namespace moe::quant {
namespace {

constexpr int half_block = 16;

// twice the numbers of E2M1
constexpr std::int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Fifth bit of number j, out of the 32 bits in front of the low ones.
int fifth(std::uint32_t bits, int j) {
  return int(bits >> j & 1) << 4;
}

// Half of UE4M3, an unsigned E4M3 whose NaN counts as 0.
float half_ue4m3(Byte s) {
  if (s == 0x7f)
    return 0;
  const int exponent = s >> 3 & 15;
  const int mantissa = s & 7;
  const float whole = exponent == 0 ? std::ldexp(float(mantissa), -9)
                                    : std::ldexp(float(8 + mantissa), exponent - 10);
  return whole * 0.5f;
}

}  // namespace

// d, m, 16 bytes; d q + m
void q4_1(const Byte* from, float* out) {
  const float d = half_at(from);
  const float m = half_at(from + 2);
  for (int j = 0; j < half_block; ++j) {
    const Byte q = from[4 + j];
    out[j] = d * float(q & 15) + m;
    out[j + half_block] = d * float(q >> 4) + m;
  }
}

// d, 32 fifth bits, 16 bytes; d (q - 16)
void q5_0(const Byte* from, float* out) {
  const float d = half_at(from);
  const std::uint32_t high = u32_at(from + 2);
  for (int j = 0; j < half_block; ++j) {
    const Byte q = from[6 + j];
    out[j] = d * float(((q & 15) | fifth(high, j)) - 16);
    out[j + half_block] = d * float(((q >> 4) | fifth(high, j + half_block)) - 16);
  }
}

// d, m, 32 fifth bits, 16 bytes; d q + m
void q5_1(const Byte* from, float* out) {
  const float d = half_at(from);
  const float m = half_at(from + 2);
  const std::uint32_t high = u32_at(from + 4);
  for (int j = 0; j < half_block; ++j) {
    const Byte q = from[8 + j];
    out[j] = d * float((q & 15) | fifth(high, j)) + m;
    out[j + half_block] = d * float((q >> 4) | fifth(high, j + half_block)) + m;
  }
}

// d, 16 bytes of places in a table
void iq4_nl(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int j = 0; j < half_block; ++j) {
    const Byte q = from[2 + j];
    out[j] = d * float(iq4_values[q & 15]);
    out[j + half_block] = d * float(iq4_values[q >> 4]);
  }
}

// an exponent e, 16 bytes; 2^(e - 128) times twice E2M1
void mxfp4(const Byte* from, float* out) {
  const float d = std::ldexp(1.0f, from[0] - 128);
  for (int j = 0; j < half_block; ++j) {
    const Byte q = from[1 + j];
    out[j] = d * float(e2m1_doubled[q & 15]);
    out[j + half_block] = d * float(e2m1_doubled[q >> 4]);
  }
}

// four scales, then for each 16 numbers 8 bytes, the low halves first
void nvfp4(const Byte* from, float* out) {
  for (int part = 0; part < 4; ++part) {
    const float d = half_ue4m3(from[part]);
    for (int j = 0; j < 8; ++j) {
      const Byte q = from[4 + 8 * part + j];
      out[16 * part + j] = d * float(e2m1_doubled[q & 15]);
      out[16 * part + 8 + j] = d * float(e2m1_doubled[q >> 4]);
    }
  }
}

// d, 128 bits; d where the bit is 1, else -d
void q1_0(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int j = 0; j < 128; ++j)
    out[j] = from[2 + j / 8] >> (j % 8) & 1 ? d : -d;
}

// d, 64 times two bits; d (q - 1)
void q2_0(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int j = 0; j < 64; ++j)
    out[j] = d * float((from[2 + j / 4] >> (2 * (j % 4)) & 3) - 1);
}

}  // namespace moe::quant
