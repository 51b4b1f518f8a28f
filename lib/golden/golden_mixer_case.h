// A file of a mixer as our models understand it: its options as a mixer's spec.
#pragma once
#include <optional>
#include <string>

#include "lib/trace/golden.h"

namespace moe {

struct AttentionOptions {
  int heads = 1, head_dim = 1;
  double scale = 1;
  bool bias = false, causal = true, key_mask = false;
  Index cross = 0;  // rows of the encoder that are attended to; 0 = the layer's own
};

struct GoldenMixerCase {
  std::string spec;  // "mamba2:heads=4,head_dim=3"; empty: a causal convolution alone
  Index batch = 0, length = 0, hidden = 0;
  double eps = 1e-5;
  int layers = 1, layer = 0;  // the mixer's place in its model
  bool carried = false, silu = false;
  std::optional<AttentionOptions> attention;  // of the mixer that is attention
};

// Throws Unsupported, or Error(input) where the file is not what it should be.
GoldenMixerCase read_golden_mixer(const GoldenFile&);

}  // namespace moe
