// A file of a mixer as our models understand it: its options as a mixer's spec.
#pragma once
#include <string>

#include "lib/trace/golden.h"

namespace moe {

struct GoldenMixerCase {
  std::string spec;  // "mamba2:heads=4,head_dim=3"; empty: a causal convolution alone
  Index batch = 0, length = 0, hidden = 0;
  double eps = 1e-5;
  int layers = 1, layer = 0;  // the mixer's place in its model
  bool carried = false, silu = false;
};

// Throws Unsupported, or Error(input) where the file is not what it should be.
GoldenMixerCase read_golden_mixer(const GoldenFile&);

}  // namespace moe
