// Rotary embedding as published models have it: frequencies of the plain rule, or changed by one of
// the rules for longer contexts.
#pragma once
#include <string>
#include <vector>

#include "lib/backend/backend.h"

namespace moe {

// Frequencies and the factor of cosines and sines. LongRoPE has two sets: the second counts where a
// batch reaches past `original`.
struct Rotary {
  std::vector<double> frequency, far_frequency;
  double scale = 1, far_scale = 1;
  int original = 0;                           // 0 = one set
  bool mixed = false, mixed_by_head = false;  // fourier.h: `frequency` has those that are kept

  bool is_far(int furthest) const {
    return original > 0 && furthest >= original;
  }
  // Heads of `head_dim`, turned from number `first` on, where the last position of the batch is
  // `furthest`.
  Rotation rotation(int head_dim, int first, bool interleaved, int furthest) const {
    return {head_dim, first, interleaved, is_far(furthest) ? far_scale : scale,
            is_far(furthest) ? far_frequency : frequency};
  }
};

// The rule of models without positions; rotary_of() gives no frequencies for it.
inline constexpr std::string_view rope_none = "none";

// rule: "default", "none", "linear:factor=2", "llama3:factor=8,low=1,high=4,original=8192",
// "yarn:factor=32,original=4096,...",
// "longrope:short=1;1.1,long=2;4,original=4096,short_scale=1,long_scale=1.2",
// "proportional:share=0.25", "fourier:pairs=16,by_head=1" (pairs=0: all). Throws Error(usage) for
// another name or wrong numbers.
Rotary rotary_of(const std::string& rule, int dims, double theta);
const std::vector<std::string>& rotary_rules();

double yarn_magnitude(double factor, double weight);  // 0.1 w ln f + 1, and 1 where f <= 1

}  // namespace moe
