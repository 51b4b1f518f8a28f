// One block of each format of ggml: its bytes in, its numbers out. The layouts are those of ggml's
// block structures (ggml-common.h of llama.cpp), read byte by byte, so that nothing depends on
// alignment. In the comments d and m are float16, "lo" and "hi" are the halves of a byte.
#pragma once
#include <cstdint>
#include <cstring>

#include "lib/core/dtype.h"

namespace moe::quant {

using Byte = std::uint8_t;

inline std::uint16_t u16_at(const Byte* p) {
  return std::uint16_t(p[0] | p[1] << 8);
}
inline std::uint32_t u32_at(const Byte* p) {
  return std::uint32_t(p[0]) | std::uint32_t(p[1]) << 8 | std::uint32_t(p[2]) << 16 |
         std::uint32_t(p[3]) << 24;
}
inline float half_at(const Byte* p) {
  return f16_to_float(u16_at(p));
}
// Half number `i` of consecutive halves of bytes, the low one first.
inline int nibble(const Byte* p, int i) {
  return p[i / 2] >> (4 * (i % 2)) & 15;
}

// plain.cpp: one number a block
void f32(const Byte*, float*);
void f16(const Byte*, float*);
void bf16(const Byte*, float*);
void f64(const Byte*, float*);
// small_blocks.cpp: 32 to 128 numbers a block
void q4_0(const Byte*, float*);
void q4_1(const Byte*, float*);
void q5_0(const Byte*, float*);
void q5_1(const Byte*, float*);
void q8_0(const Byte*, float*);
void iq4_nl(const Byte*, float*);
void mxfp4(const Byte*, float*);
void nvfp4(const Byte*, float*);
void q1_0(const Byte*, float*);
void q2_0(const Byte*, float*);
// k_blocks.cpp: 256 numbers a block, with scales of parts
void q2_k(const Byte*, float*);
void q3_k(const Byte*, float*);
void q4_k(const Byte*, float*);
void q5_k(const Byte*, float*);
void q6_k(const Byte*, float*);
void iq4_xs(const Byte*, float*);
void tq1_0(const Byte*, float*);
void tq2_0(const Byte*, float*);
// grid_blocks.cpp: 256 numbers a block, out of tables
void iq1_s(const Byte*, float*);
void iq1_m(const Byte*, float*);
void iq2_xxs(const Byte*, float*);
void iq2_xs(const Byte*, float*);
void iq2_s(const Byte*, float*);
void iq3_xxs(const Byte*, float*);
void iq3_s(const Byte*, float*);

// values of four bits in IQ4_NL and IQ4_XS
inline constexpr std::int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace moe::quant
