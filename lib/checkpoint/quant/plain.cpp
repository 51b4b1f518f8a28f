// Formats without blocks: floating-point numbers of 16, 32 and 64 bits.
#include "lib/checkpoint/quant/blocks.h"

namespace moe::quant {

void f32(const Byte* from, float* out) {
  std::memcpy(out, from, sizeof *out);
}

void f16(const Byte* from, float* out) {
  *out = half_at(from);
}

void bf16(const Byte* from, float* out) {
  *out = bf16_to_float(u16_at(from));
}

void f64(const Byte* from, float* out) {
  double v;
  std::memcpy(&v, from, sizeof v);
  *out = float(v);
}

}  // namespace moe::quant
