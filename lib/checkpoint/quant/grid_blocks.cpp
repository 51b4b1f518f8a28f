// Formats of 256 numbers a block that choose groups of eight or four numbers from tables, with
// their signs apart. Of the 256, `b` counts parts of 32 and `k` groups of eight in a part.
#include <bit>

#include "lib/checkpoint/quant/blocks.h"
#include "lib/checkpoint/quant/grids.h"

namespace moe::quant {
namespace {

constexpr float shift = 0.125f;  // of the ternary tables

// Eight signs from seven: the last makes their number even.
Byte even_signs(std::uint32_t seven) {
  const std::uint32_t low = seven & 127;
  return Byte(low | std::uint32_t(std::popcount(low) & 1) << 7);
}

float signed_number(float v, Byte signs, int i) {
  return signs >> i & 1 ? -v : v;
}

// Eight numbers of an entry of a table of two bits.
void eight(std::uint16_t entry, float scale, Byte signs, float* out) {
  for (int i = 0; i < 8; ++i)
    out[i] = signed_number(scale * float(iq2_levels[entry >> (2 * i) & 3]), signs, i);
}

// Four numbers of an entry of a table of three bits; their signs begin at bit `first`.
void four(std::uint16_t entry, const std::int8_t* levels, float scale, Byte signs, int first,
          float* out) {
  for (int i = 0; i < 4; ++i)
    out[i] = signed_number(scale * float(levels[entry >> (3 * i) & 7]), signs, first + i);
}

// Eight numbers -1, 0, 1, all shifted alike.
void eight_shifted(std::uint16_t entry, float scale, float delta, float* out) {
  for (int i = 0; i < 8; ++i)
    out[i] = scale * (float(iq1_levels[entry >> (2 * i) & 3]) + delta);
}

}  // namespace

// d, for each 32: four entries, 4 x 7 signs beside a scale
void iq2_xxs(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int b = 0; b < 8; ++b) {
    const Byte* part = from + 2 + 8 * b;
    const std::uint32_t a = u32_at(part + 4);
    const float scale = d * (0.5f + float(a >> 28)) * 0.25f;
    for (int k = 0; k < 4; ++k)
      eight(iq2_xxs_grid[part[k]], scale, even_signs(a >> (7 * k)), out + 32 * b + 8 * k);
  }
}

// d, 32 entries of nine bits beside seven signs, 16 scales
void iq2_xs(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int b = 0; b < 8; ++b) {
    for (int k = 0; k < 4; ++k) {
      const int a = u16_at(from + 2 + 2 * (4 * b + k));
      const int s = nibble(from + 66, 2 * b + k / 2);
      const float scale = d * (0.5f + float(s)) * 0.25f;
      eight(iq2_xs_grid[a & 511], scale, even_signs(std::uint32_t(a) >> 9), out + 32 * b + 8 * k);
    }
  }
}

// d, eight low bits of 32 entries, 32 x 8 signs, two high bits of the entries, 16 scales
void iq2_s(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int b = 0; b < 8; ++b) {
    for (int k = 0; k < 4; ++k) {
      const int group = 4 * b + k;
      const int entry = from[2 + group] | (from[66 + b] >> (2 * k) & 3) << 8;
      const float scale = d * (0.5f + float(nibble(from + 74, 2 * b + k / 2))) * 0.25f;
      eight(iq2_s_grid[entry], scale, from[34 + group], out + 8 * group);
    }
  }
}

// d, 64 entries, for each 32: 4 x 7 signs beside a scale
void iq3_xxs(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int b = 0; b < 8; ++b) {
    const std::uint32_t a = u32_at(from + 66 + 4 * b);
    const float scale = d * (0.5f + float(a >> 28)) * 0.5f;
    for (int i = 0; i < 8; ++i) {
      const int group = 8 * b + i;
      four(iq3_xxs_grid[from[2 + group]], iq3_xxs_levels, scale, even_signs(a >> (7 * (i / 2))),
           4 * (i % 2), out + 4 * group);
    }
  }
}

// d, eight low bits of 64 entries, their ninth bits, 32 x 8 signs, eight scales
void iq3_s(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int b = 0; b < 8; ++b) {
    const float scale = d * float(1 + 2 * nibble(from + 106, b));
    for (int i = 0; i < 8; ++i) {
      const int group = 8 * b + i;
      const int entry = from[2 + group] | (from[66 + b] >> i & 1) << 8;
      four(iq3_s_grid[entry], iq3_s_levels, scale, from[74 + group / 2], 4 * (i % 2),
           out + 4 * group);
    }
  }
}

// d, eight low bits of 32 entries, for each 32: 4 x 3 high bits, a scale, the sign of the shift
void iq1_s(const Byte* from, float* out) {
  const float d = half_at(from);
  for (int b = 0; b < 8; ++b) {
    const int h = u16_at(from + 34 + 2 * b);
    const float scale = d * float(2 * (h >> 12 & 7) + 1);
    const float delta = h >> 15 ? -shift : shift;
    for (int k = 0; k < 4; ++k) {
      const int entry = from[2 + 4 * b + k] | (h >> (3 * k) & 7) << 8;
      eight_shifted(iq1_s_grid[entry], scale, delta, out + 32 * b + 8 * k);
    }
  }
}

// eight low bits of 32 entries, three high bits and a sign of each, 16 scales of three bits with
// d's bits above them
void iq1_m(const Byte* from, float* out) {
  int bits = 0;
  for (int i = 0; i < 4; ++i)
    bits |= u16_at(from + 48 + 2 * i) >> 12 << (4 * i);
  const float d = f16_to_float(std::uint16_t(bits));
  for (int b = 0; b < 8; ++b) {
    const int scales = u16_at(from + 48 + 2 * (b / 2));
    for (int k = 0; k < 4; ++k) {
      const int group = 4 * b + k;
      const int h = nibble(from + 32, group);
      const int s = scales >> (6 * (b % 2) + 3 * (k / 2)) & 7;
      const int entry = from[group] | (h & 7) << 8;
      eight_shifted(iq1_s_grid[entry], d * float(2 * s + 1), h & 8 ? -shift : shift,
                    out + 8 * group);
    }
  }
}

}  // namespace moe::quant
