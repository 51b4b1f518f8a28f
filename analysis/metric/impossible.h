// Rows that no router can have made: one expert in several of a token's choices in a layer. Engines
// give zeros for tokens whose routing they did not keep, and expert 0 in every slot where logits
// are NaN; counted as routing, they look like collapse.
#pragma once
#include <string>

#include "analysis/metric/metric.h"

namespace moe {

struct ImpossibleRows {
  std::uint64_t rows = 0;   // of those that are not padding
  std::uint64_t first = 0;  // the first of them
  // A sentence for the head of a report: of `tokens` rows these are left out.
  std::string sentence(std::uint64_t tokens) const;
};

// (T) 1 where a token's choices name an expert twice; empty where none does.
std::vector<std::uint8_t> repeated_choices(const LayerChoices&, Index tokens, int experts);

}  // namespace moe
