// Formats without blocks: floating-point numbers of 16 and 64 bits.
#include "lib/checkpoint/quant/blocks.h"

namespace moe::quant {

void f16(const Byte* from, float* out) {
  *out = half_at(from);
}

void f64(const Byte* from, float* out) {
  double v;
  std::memcpy(&v, from, sizeof v);
  *out = float(v);
}

}  // namespace moe::quant
