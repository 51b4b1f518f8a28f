// What router.h sums up, as tables and a finding.
#include <algorithm>
#include <cmath>

#include "analysis/metric/finding.h"
#include "analysis/metric/router.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// A column for those figures that the trace has data for.
void add_known(TableBuilder& t, const Values& values, const char* id, const char* name,
               const char* unit, const char* meaning, int digits = 3) {
  if (values.has(id))
    t.column(name).unit(unit).meaning(meaning).of(id, values).digits(digits);
}

}  // namespace

// The chance values are those of equal logits.
Values RouterMetric::with_chance(std::vector<MetricValue> measured) const {
  Values all(std::move(measured));
  const auto chance = [&](const char* id, double (*of)(double experts)) {
    if (!all.has(id))
      return;
    for (const int e : shape_.experts)
      all[id].chance.value.push_back(of(double(e)));
  };
  const auto zero = [](double) {
    return 0.0;
  };
  const auto one = [](double) {
    return 1.0;
  };
  chance("router_entropy_norm", one);
  chance("router_margin", zero);
  chance("router_top1_mass", [](double e) { return 1.0 / e; });
  chance("router_entropy", [](double e) { return std::log(e); });
  chance("router_mutual_information", zero);
  chance("router_second_ratio_median", [](double e) { return e > 1 ? 1.0 : 0.0; });
  chance("router_gate_variance", zero);
  chance("router_z", [](double e) { return std::log(e) * std::log(e); });
  chance("aux_switch", one);
  chance("aux_sequence", one);
  for (std::size_t l = 0; l < sums_.size() && all.has("router_topk_mass"); ++l) {
    all["router_topk_mass"].chance.value.push_back(double(shape_.top_k[l]) / shape_.experts[l]);
  }
  return all;
}

// The other figures, by layer.
void RouterMetric::more(Report& r, const Values& values) const {
  TableBuilder t("router_more", "The router's confidence and balance losses by other definitions",
                 section::router);
  t.reading(
       "Each figure under the id of its definition (docs/metrics.md). The chance values are "
       "those of equal logits; losses are without their coefficient.")
      .detail();
  t.layers(shape_.number);
  add_known(t, values, "aux_sequence", "sequence loss", "",
            "mean over sequences of the Switch loss of each");
  add_known(t, values, "aux_switch", "Switch loss", "", "E sum f p over the layer");
  add_known(t, values, "router_entropy", "entropy", "nats",
            "mean entropy of the router's distribution");
  add_known(t, values, "router_gate_variance", "variance", "",
            "mean over tokens of the variance of p over experts", 5);
  add_known(t, values, "router_mutual_information", "information", "nats",
            "entropy of the mean distribution less the mean entropy: how far p depends on the "
            "token",
            4);
  add_known(t, values, "router_second_ratio_median", "second over first", "",
            "median of the second largest probability over the largest");
  add_known(t, values, "router_z", "z", "nats²", "mean squared logsumexp of the logits (z-loss)",
            2);
  if (t.columns() > 1)
    t.into(r);
}

// The loss that is one number for all layers.
void RouterMetric::over_all_layers(Report& r, const Values& values) const {
  if (!values.has("aux_concat") || std::isnan(values.at("aux_concat").value.front()))
    return;
  double choices = 0;
  double tokens = 0;
  for (const Sums& s : sums_) {
    choices += s.assignments;
    tokens += s.tokens;
  }
  TableBuilder t("aux_concat", "The balance loss over all layers at once", section::router);
  t.reading(
       "As Hugging Face computes it, without its coefficient: at balance and for equal logits it "
       "is K, not 1.")
      .detail();
  t.key("layers", "MoE layers", std::vector<std::int64_t>{shape_.layers()});
  t.column("loss")
      .meaning("E sum f p, both over all layers and tokens together")
      .of("aux_concat", values)
      .chance(choices / tokens);
  t.into(r);
}

double RouterMetric::entropy_error(std::size_t l) const {
  const Sums& s = sums_[l];
  const double n = s.entropy_tokens;
  const double mean = s.entropy / n;
  const double variance = std::max(0.0, s.entropy_squares / n - mean * mean);
  return std::sqrt(variance / n) / std::log(double(shape_.experts[l]));
}

// The layers of the lowest and of the highest entropy, without a conclusion.
static Finding both_ends(const QuotedTable& t, std::size_t low, std::size_t high) {
  return told(" The lowest entropy is ", t.cell("entropy", low).figure(), " of ln E (layer ",
              t.cell("layer", low), "), the highest ", t.cell("entropy", high).figure(), " (layer ",
              t.cell("layer", high), "); equal logits would give 1.");
}

// Layers are told apart where the entropies of tokens, as if independent, would rarely give means
// so far from each other.
void RouterMetric::finding(Report& r) const {
  const QuotedTable t(r, "router");
  const std::span<const double> entropy = t.numbers("entropy");
  const auto [lowest, highest] = std::minmax_element(entropy.begin(), entropy.end());
  if (entropy.empty() || std::isnan(*lowest))
    return;
  const auto low = std::size_t(lowest - entropy.begin());
  const auto high = std::size_t(highest - entropy.begin());
  const double error = std::hypot(entropy_error(low), entropy_error(high));
  const double seen = std::min(sums_[low].entropy_tokens, sums_[high].entropy_tokens);
  const Standing s =
      standing(*highest - *lowest, {0, error}, {.tokens = seen, .figures = double(entropy.size())});
  if (s.shown == Shown::too_few) {
    return tell(r, too_few(seen, "in which layer the router is surest", s.needed),
                both_ends(t, low, high));
  }
  if (s.shown == Shown::no_more) {
    return tell(r, Priority::chance, "The router is about as sure in every layer (entropy ",
                t.cell("entropy", low).figure(), " to ", t.cell("entropy", high).figure(),
                " of ln E); equal logits would give 1.");
  }
  tell(r, "The router is surest in layer ", t.cell("layer", low), " (entropy ",
       t.cell("entropy", low).figure(), " of ln E) and least sure in layer ", t.cell("layer", high),
       " (", t.cell("entropy", high).figure(), "); equal logits would give 1.");
}

void RouterMetric::report(Report& r) const {
  std::vector<MetricValue> measured = values();
  if (measured.empty()) {
    return r.warnings.push_back(
        "the trace holds neither logits nor router entropy: router confidence cannot be computed");
  }
  const Values all = with_chance(std::move(measured));
  TableBuilder t("router", "How sure the router is", section::router);
  t.reading(
       "Entropy 1 and margin 0 are a router that cannot tell the experts apart (all logits "
       "equal), entropy 0 one that is certain. "
       "A small margin means that small numerical noise changes the choice. The chance values "
       "are those of equal logits.")
      .chart(Chart::lines);
  t.layers(shape_.number);
  add_known(t, all, "router_entropy_norm", "entropy", "of ln E",
            "mean entropy of the router's distribution over its largest value ln E");
  add_known(t, all, "router_margin", "margin", "probability",
            "mean gap between the last chosen expert and the first not chosen", 4);
  add_known(t, all, "router_top1_mass", "first choice", "probability",
            "mean probability of the first choice");
  add_known(t, all, "router_topk_mass", "chosen", "probability",
            "mean probability of all chosen experts together");
  t.into(r);
  over_all_layers(r, all);
  more(r, all);
  if (all.has("router_entropy_norm"))
    finding(r);
}

}  // namespace moe
