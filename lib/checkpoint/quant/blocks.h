// One block of each format of ggml, or rows of blocks: bytes in, numbers out. The layouts are those
// of ggml's block structures (ggml-common.h of llama.cpp), read byte by byte, so that nothing
// depends on alignment. In the comments d and m are float16, "lo" and "hi" are the halves of a
// byte.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

#include "lib/core/clones.h"
#include "lib/core/dtype.h"
#include "lib/core/view.h"

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

struct ScaleAndMin {
  int scale, min;
};
// Of part j of 8: twice eight numbers of six bits in 12 bytes.
MOE_INLINE ScaleAndMin scale_and_min(const Byte* s, int j) {
  if (j < 4)
    return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4};
}

// rows.cpp: blocks one behind the other
void f32(const Byte*, float*, Index blocks);
void bf16(const Byte*, float*, Index blocks);
void q8_0(const Byte*, float*, Index blocks);
void q4_0(const Byte*, float*, Index blocks);
void q4_k(const Byte*, float*, Index blocks);
void q6_k(const Byte*, float*, Index blocks);
// plain.cpp: one number a block
void f16(const Byte*, float*);
void f64(const Byte*, float*);
// small_blocks.cpp: 32 to 128 numbers a block
void q4_1(const Byte*, float*);
void q5_0(const Byte*, float*);
void q5_1(const Byte*, float*);
void iq4_nl(const Byte*, float*);
void mxfp4(const Byte*, float*);
void nvfp4(const Byte*, float*);
void q1_0(const Byte*, float*);
void q2_0(const Byte*, float*);
// k_blocks.cpp: 256 numbers a block, with scales of parts
void q2_k(const Byte*, float*);
void q3_k(const Byte*, float*);
void q5_k(const Byte*, float*);
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
