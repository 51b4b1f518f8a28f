// What happens to a model of the same work a token when its experts become many: 2, 4, 8, ... times
// as many of the same width, as many choices.
#pragma once
#include <vector>

#include "lib/plan/law.h"
#include "lib/plan/storage.h"

namespace moe::plan {

struct GrowthPoint {
  Count experts = 0;
  double parameters = 0, bytes = 0;
  double router_flops = 0, router_share = 0;  // of a token's forward; share of its products
  double router_bytes = 0;                    // of all routers
  // of a token: ids and weights of its choices, and counts of a layer's experts in 4 bytes each
  double table_bytes = 0, count_bytes = 0;
  double rows = 0;     // of an expert, 4,096 tokens a device on as many devices as experts / 4
  double touched = 0;  // share of experts that 4,096 tokens touch
};
std::vector<GrowthPoint> growth(const Architecture&, const Storage&, Count most_experts);

// Exponent b of y = a x^b through the points, by least squares of logarithms.
double exponent(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace moe::plan
