// How the routers softmax and sigmoid choose (equations.md 1, 2.1-2.3), in numbers a device can
// take: lib/router decides on the host, in double, by the same rule.
#pragma once
#include "lib/core/view.h"

namespace moe {

struct TopK {
  bool sigmoid = false;  // score s of a logit: its sigmoid; else its share of the softmax
  int k = 2;
  bool norm = true;  // weights are divided by the sum of the chosen scores
  double scale = 1, temperature = 1;
  bool bias_on_logit = false;  // the correction bias is added to the logit; else to the score
  int groups = 1;              // of experts, equally many each, 64 at most
  // so many groups are left to choose from; 0 = every group gives its k/groups best
  int topk_groups = 0;
  bool top2_sum = false;  // what ranks a group: its two best keys; else its best
  bool operator==(const TopK&) const = default;
};

}  // namespace moe
