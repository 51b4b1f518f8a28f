// moe eval --without-expert each: what every single expert is worth.
#pragma once
#include <vector>

#include "analysis/table.h"
#include "apps/loss_changes.h"
#include "lib/edit/edit.h"

namespace moe {

// The change of the loss without one expert, over the mean of domains and by domain.
struct ExpertWorth {
  ExpertName expert;
  double load = 0;  // its share of the choices of its layer, with every expert there
  LossChanges changes;
};

// Adds a map of layer and expert, and findings: which expert is worth most, how many are worth
// something beyond what as many experts show at random, and whether the load foretells it.
void add_worth(Report&, const std::vector<ExpertWorth>&);

}  // namespace moe
