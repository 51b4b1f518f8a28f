// Rotary embedding by three axes, time, height and width (M-RoPE of Qwen2-VL, Qwen3-VL and ERNIE
// 4.5 VL): which pairs of a head turn by which, and the rotations that this makes. Rows of text
// have the same position on all three and turn as they do by one.
#pragma once
#include <array>
#include <optional>
#include <string>

#include "lib/model/rotary.h"
#include "lib/signal/positions.h"

namespace moe {

struct RopeAxes {
  PairRule rule = PairRule::sections;
  std::array<int, 3> sections{};  // pairs, in the order of the rule (positions.h)

  int pairs() const {
    return sections[0] + sections[1] + sections[2];
  }
};

// "interleaved:24;20;20", "sections:16;24;24" or "ernie:22;22;20", also with + for ;. "" = none.
// Throws Error(usage) for anything else.
std::optional<RopeAxes> rope_axes(const std::string& text);
std::string axes_text(const RopeAxes&);

// One for each axis: the frequencies of the pairs that turn by it, 0 for the others; the factor of
// cosines and sines stands in the first.
std::array<Rotary, 3> by_axes(const Rotary&, const RopeAxes&);

}  // namespace moe
