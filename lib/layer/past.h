// Of sequences that go on: what a layer keeps of the rows before, and where those of each sequence
// stand. What it keeps is the business of the part that keeps it.
#pragma once
#include <span>

#include "lib/core/view.h"

namespace moe {

struct MixerState {
  virtual ~MixerState() = default;
};
// What a part that mixes rows sees of it. The part brings `state` up to date; `start`, (Q+1) rows
// of each sequence so far, end to end, moves on after all layers.
struct MixerPast {
  MixerState& state;
  std::span<const Index> start;
};

}  // namespace moe
