// What publications mean by the FLOPs of a token. Each convention is one choice among those below;
// a figure without its convention cannot be compared, for DeepSeek-V3 at 4,096 tokens causal or
// full attention alone is 12 %.
#pragma once
#include <string_view>
#include <vector>

#include "lib/model/sizes.h"

namespace moe::plan {

// Of one token's forward, multiply-add = 2.
struct TokenFlops {
  double products = 0;   // with weights of layers
  double output = 0;     // with the output matrix
  double embedding = 0;  // what a one-hot product with the input embedding would be
  double full = 0;       // attention, every token sees the whole context (or its window)
  double causal = 0;     // attention, mean over the positions of a sequence
  double further = 0;    // layers that predict further tokens (MTP), with causal attention
};
// context: tokens of a sequence.
TokenFlops token_flops(const Architecture&, Count context);

struct Convention {
  std::string_view name, about;
  // multiples of a forward; what is counted
  double passes = 1;
  bool causal = true, further = false, embedding = false;
  // as the trainers of NVIDIA count: a window is ignored, and experts with a clamped gate have two
  // matrices in the place of three
  bool windows = true, gates = true;
};
// CONVENTION lines: forward and training, causal and full, ...
const std::vector<Convention>& conventions();
const Convention& convention(std::string_view name);  // throws Error(bug) for an unknown name
// FLOPs of a token under a convention.
double flops(const Architecture&, Count context, const Convention&);

}  // namespace moe::plan
