// What a router's spec says, in the words of published configurations. For the two files that write
// and read config.json.
#pragma once
#include "lib/model/config.h"

namespace moe {

struct RoutingFacts {
  std::string kind;  // softmax, sigmoid, or a router that is neither
  int k = 1, groups = 1, topk_groups = 1;
  bool norm = true, bias = false, top2_sum = false, one_per_group = false;
  bool bias_on_logits = false;
  double scale = 1, temperature = 1;  // temperature 0: it moves along training
};
RoutingFacts routing_facts(const ModelConfig&);

}  // namespace moe
