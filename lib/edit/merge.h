// Several experts as one: which belong together, by their weights or by what they put out, and what
// mean of them stands for all.
#pragma once
#include "lib/edit/edit.h"

namespace moe {

struct Merging {
  double threshold = 0.9;  // the least similarity of each pair that becomes one
  int count = 0;           // experts that stay in each layer; 0 = as the threshold has it
  // Hidden units of an expert are put in the order that fits those of the one it joins best
  // (largest sum of cosines of units), before the mean is taken, and before weights are compared.
  bool aligned = false;
  ExpertScores use = {};  // (MoE layers)(E): shares in the mean; empty, or 0 for all = equal
  // (MoE layers)(E,E): how alike experts are; empty = cosine of their weights (gate, up, down end
  // to end)
  std::vector<Matrix<float>> alike = {};
};

// Most similar first, each pair within a group as similar as asked for. All layers keep as many:
// `count`, or what the layer with the fewest similar experts keeps. Throws Error(failed) where
// nothing would be merged, Error(usage) where the rest would be no model.
Edited merge_experts(Decoder<float>&, const Merging&);

}  // namespace moe
