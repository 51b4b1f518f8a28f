// Rows of the formats that most models are published in, a block after the other and many numbers
// of it at once. Vectorised in every build type, and without fused multiplications, so that all
// levels of processors give the same bytes.
#include "lib/checkpoint/quant/blocks.h"
#include "lib/core/clones.h"

namespace moe::quant {
namespace {

// Sixteen numbers 32 t .. of 128: four bits in the low half of bytes (t < 2) or in the high one,
// and two more at bit 2 t.
MOE_INLINE void sixteen_of_six_bits(const Byte* low, const Byte* high, int t, float scale,
                                    float* out) {
#pragma omp simd
  for (int i = 0; i < 16; ++i) {
    const int value = (low[i] >> (t / 2 * 4) & 15) | (high[i] >> (2 * t) & 3) << 4;
    out[i] = scale * float(value - 32);
  }
}

}  // namespace

void f32(const Byte* __restrict from, float* __restrict out, Index numbers) {
  std::memcpy(out, from, std::size_t(numbers) * sizeof(float));
}

MOE_SIMD void bf16(const Byte* __restrict from, float* __restrict out, Index numbers) {
#pragma omp simd
  for (Index i = 0; i < numbers; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, from + 2 * i, sizeof bits);
    out[i] = std::bit_cast<float>(std::uint32_t(bits) << 16);
  }
}

// d, 32 signed bytes
MOE_SIMD void q8_0(const Byte* __restrict from, float* __restrict out, Index blocks) {
  for (Index b = 0; b < blocks; ++b, from += 34, out += 32) {
    const float d = half_at(from);
#pragma omp simd
    for (int j = 0; j < 32; ++j)
      out[j] = d * float(std::int8_t(from[2 + j]));
  }
}

// d, 16 bytes; d (q - 8)
MOE_SIMD void q4_0(const Byte* __restrict from, float* __restrict out, Index blocks) {
  for (Index b = 0; b < blocks; ++b, from += 18, out += 32) {
    const float d = half_at(from);
#pragma omp simd
    for (int j = 0; j < 16; ++j)
      out[j] = d * float((from[2 + j] & 15) - 8);
#pragma omp simd
    for (int j = 0; j < 16; ++j)
      out[j + 16] = d * float((from[2 + j] >> 4) - 8);
  }
}

// d, m, 8 scales and minima, four bits each
MOE_SIMD void q4_k(const Byte* __restrict from, float* __restrict out, Index blocks) {
  for (Index b = 0; b < blocks; ++b, from += 144, out += 256) {
    const float d = half_at(from);
    const float m = half_at(from + 2);
    for (int part = 0; part < 8; ++part) {
      const ScaleAndMin of_part = scale_and_min(from + 4, part);
      const float scale = d * float(of_part.scale);
      const float min = m * float(of_part.min);
      const Byte* q = from + 16 + part / 2 * 32;
      const int shift = 4 * (part % 2);
#pragma omp simd
      for (int l = 0; l < 32; ++l)
        out[32 * part + l] = scale * float(q[l] >> shift & 15) - min;
    }
  }
}

// four low bits each, two high bits each, 16 signed scales, d
MOE_SIMD void q6_k(const Byte* __restrict from, float* __restrict out, Index blocks) {
  for (Index b = 0; b < blocks; ++b, from += 210, out += 256) {
    const float d = half_at(from + 208);
    for (int part = 0; part < 16; ++part) {
      const int t = part % 8 / 2;
      const int sixteen = part % 2 * 16;
      const Byte* low = from + part / 8 * 64 + t % 2 * 32 + sixteen;
      const Byte* high = from + 128 + part / 8 * 32 + sixteen;
      const float scale = d * float(std::int8_t(from[192 + part]));
      sixteen_of_six_bits(low, high, t, scale, out + 16 * part);
    }
  }
}

}  // namespace moe::quant
