#include "lib/trace/plausible.h"

#include <algorithm>
#include <cmath>

namespace moe {
namespace {

constexpr double slack = 0.02;

bool near(double a, double b) {
  return std::abs(a - b) <= slack * std::max(1.0, std::abs(b));
}

}  // namespace

bool names_twice(std::span<const int> ids) {
  for (std::size_t i = 1; i < ids.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (ids[i] == ids[j] && ids[i] >= 0)
        return true;
    }
  }
  return false;
}

bool logits_fit(std::span<const float> logits) {
  const auto is_nan = [](float v) {
    return std::isnan(v);
  };
  if (std::ranges::all_of(logits, is_nan))
    return true;
  const float top = *std::ranges::max_element(logits);
  return std::ranges::none_of(logits, is_nan) && std::isfinite(top);
}

RowRules rules_of(const TraceHeader& h, const TraceLayer& layer) {
  const bool by_weight = layer.score_fn == ScoreFn::softmax && h.router_bias.empty() &&
                         h.weight_kind != "mix" && h.order == "key_desc";
  RowRules rules{.rises = h.order == "id_asc",
                 .falls = h.order == "weight_desc" || by_weight,
                 .sums_to_one = h.weight_normalized && h.weight_kind == "combine",
                 .scale = double(layer.routed_scale)};
  const bool raw = h.weight_kind == "combine" && !h.weight_normalized && layer.routed_scale > 0;
  if (h.weight_kind == "prob")
    rules.most_sum = 1;
  else if (raw && layer.score_fn == ScoreFn::softmax)
    rules.most_sum = std::max(1.0, rules.scale);
  else if (raw && layer.score_fn == ScoreFn::sigmoid)
    rules.most = std::max(1.0, rules.scale);
  return rules;
}

bool weights_fit(const RowRules& rules, std::span<const int> ids, std::span<const float> weights) {
  if (!rules.bounded() && !rules.sums_to_one)
    return true;
  double sum = 0;
  bool any = false;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0)
      continue;
    if (weights[i] < 0 || std::isinf(weights[i]) || weights[i] > rules.most * (1 + slack))
      return false;
    any = true;
    sum += double(weights[i]);
  }
  if (!any || std::isnan(sum))
    return true;
  if (sum > rules.most_sum * (1 + slack))
    return false;
  return !rules.sums_to_one || near(sum, 1) || near(sum, rules.scale);
}

bool order_fits(const RowRules& rules, std::span<const int> ids, std::span<const float> weights) {
  const bool falls = rules.falls && !weights.empty();
  for (std::size_t k = 1; k < ids.size() && (falls || rules.rises); ++k) {
    if (ids[k] < 0)
      continue;
    if (rules.rises && ids[k - 1] > ids[k])
      return false;
    if (falls && ids[k - 1] >= 0 && weights[k] > weights[k - 1])
      return false;
  }
  return true;
}

}  // namespace moe
