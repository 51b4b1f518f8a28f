// Sums over an architecture: parameters, active parameters and FLOPs, the same for a dry run and a
// plan. Definitions: docs/plan.md.
#pragma once
#include <array>

#include "lib/model/architecture.h"

namespace moe {

std::vector<WeightPiece> pieces(const FeedShape&, Count hidden);
// throws Error(input) where the sizes together do not fit 62 bits
std::vector<WeightPiece> pieces(const Architecture&);

struct ParameterCount {
  // in_file: with what a published file holds on top
  Count total = 0, in_file = 0;
  std::array<Count, part_count> part{};
  std::array<double, part_count> active{};
  // touched by a token; without input embedding; without embedding and head
  double a0 = 0, a1 = 0, a2 = 0;

  double activation_ratio() const {
    return a0 / double(total);
  }
};
ParameterCount parameters(const Architecture&);

struct Flops {           // of one token's forward; multiply-add = 2
  double products = 0;   // of weights
  double attention = 0;  // of scores and values (or states) at the given context
};
Flops flops(const Architecture&, Count context);

}  // namespace moe
