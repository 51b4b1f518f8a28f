// What no router can have written, one row of one layer at a time: the one list behind moe verify
// and the first lines of a report. Rows flagged as padding may hold anything and are not asked.
#pragma once
#include <cmath>
#include <limits>
#include <span>

#include "lib/trace/trace.h"

namespace moe {

// One expert in several slots. Missing choices (-1) are none.
bool names_twice(std::span<const int> ids);

// Every logit a number, or -inf where an expert is masked, but not all of them. A row that is all
// NaN has none recorded.
bool logits_fit(std::span<const float> logits);

// What a trace says of the choices of a layer.
struct RowRules {
  bool rises = false;        // ids: id_asc
  bool falls = false;        // weights: weight_desc, or a softmax as key that nothing else moves
  bool sums_to_one = false;  // or to `scale`
  double scale = 1;
  // What weights of a token sum to at most, and one of them is at most; infinite = no rule.
  double most_sum = std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool bounded() const {
    return std::isfinite(most_sum) || std::isfinite(most);
  }
  bool any() const {
    return rises || falls || bounded() || sums_to_one;
  }
};
RowRules rules_of(const TraceHeader&, const TraceLayer&);

// Where there is a rule: not negative, not infinite, their sum as it says, to 2 %, for they may be
// f16. Probabilities sum to no more than 1, and so do weights of a softmax that nobody normalised;
// those of a sigmoid are each no more than 1; both times the layer's scale, where one is stated.
// Kinds that may have any value (score, mix) fit, and so does a row without choices. NaN is another
// matter (not finite) and fits here.
bool weights_fit(const RowRules&, std::span<const int> ids, std::span<const float> weights);

// Without weights: as far as ids tell.
bool order_fits(const RowRules&, std::span<const int> ids, std::span<const float> weights);

}  // namespace moe
