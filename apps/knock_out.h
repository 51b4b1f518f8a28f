// moe eval --without-expert each and pair: what single experts and pairs of them are worth, as
// tables and findings.
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
  double reap = 0;  // mean over its tokens of weight times norm of its output
  LossChanges changes;
  double half[2] = {0, 0};  // the change on every second sequence of each domain, from the first on
};

// Two experts of one layer that are missing together.
struct PairWorth {
  ExpertName one, other;
  double together = 0;  // share of the layer's tokens that chose both
  LossChanges changes;
  // The change less those of each alone: what the two share. NaN intervals where too few tell.
  double beyond = 0, beyond_low = 0, beyond_high = 0;
};

struct WorthOfExperts {
  std::vector<ExpertWorth> each;
  std::vector<PairWorth> pairs;
  std::size_t pairs_left_out = 0;
};

// Adds maps of layer and expert and of pairs, and findings: which expert is worth most, how many
// are worth something beyond what as many show at random, whether the load and the REAP score
// foretell it, which pairs are worth more than their two.
void add_worth(Report&, const WorthOfExperts&);

}  // namespace moe
