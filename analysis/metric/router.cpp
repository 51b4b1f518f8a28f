// How sure the router is of its choice. From logits where the trace has them; entropy, margin and
// logsumexp otherwise from the values stored per token.
#include <algorithm>
#include <cmath>

#include "analysis/metric/layout.h"

namespace moe {
namespace {

// The median of numbers in 0..1 in bounded memory: exact for up to 65,536 of them, beyond that from
// 65,536 bins, each value off by half a bin (7.6e-6) at most.
class BoundedMedian {
 public:
  void add(float v) {
    if (bins_.empty() && values_.size() < most)
      return values_.push_back(v);
    if (bins_.empty()) {
      bins_.assign(most, 0);
      count_ = std::int64_t(values_.size());
      for (const float old : values_)
        ++bins_[bin(old)];
      values_ = {};
    }
    ++bins_[bin(v)];
    ++count_;
  }
  double value() const {
    if (!bins_.empty())
      return (at((count_ - 1) / 2) + at(count_ / 2)) / 2;
    if (values_.empty())
      return no_value;
    std::vector<float> v = values_;
    std::sort(v.begin(), v.end());
    const std::size_t half = v.size() / 2;
    return v.size() % 2 ? double(v[half]) : (double(v[half - 1]) + double(v[half])) / 2;
  }

 private:
  static constexpr std::size_t most = 65536;
  static std::size_t bin(float v) {
    return std::min(most - 1, std::size_t(double(v) * double(most)));
  }
  double at(std::int64_t rank) const {
    std::size_t b = 0;
    for (std::int64_t below = bins_[0]; below <= rank; below += bins_[++b]) {
    }
    return (double(b) + 0.5) / double(most);
  }
  std::vector<float> values_;
  std::vector<std::int64_t> bins_;
  std::int64_t count_ = 0;
};

struct Sums {  // of one layer, over tokens
  double tokens = 0, entropy = 0, margin = 0, top1 = 0, topk = 0, variance = 0, z = 0;
  // how many had one: stored values may be NaN
  double entropy_tokens = 0, margin_tokens = 0, z_tokens = 0;
  std::vector<double> mean_p, counts;  // (E)
  BoundedMedian ratio;                 // p_(2)/p_(1) of every token
  // tokens left out: a logit is NaN or +inf, or all are -inf
  std::int64_t strange = 0;
  double assignments = 0;
  // aux_sequence: the sequence being read, and the mean over those that ended
  std::uint32_t sequence = 0;
  double seq_tokens = 0, seq_assignments = 0, aux_sum = 0, sequences = 0;
  std::vector<double> seq_p, seq_counts;
};

double switch_loss(const std::vector<double>& counts, const std::vector<double>& p,
                   double assignments, double tokens) {
  double sum = 0;
  for (std::size_t e = 0; e < counts.size(); ++e)
    sum += counts[e] / assignments * (p[e] / tokens);
  return double(counts.size()) * sum;
}

class Router final : public Metric {
 public:
  explicit Router(const TraceSource& trace)
      : shape_(trace), has_(trace.fields()), sums_(shape_.experts.size()) {
    for (std::size_t l = 0; l < sums_.size(); ++l) {
      for (auto* v : {&sums_[l].mean_p, &sums_[l].counts, &sums_[l].seq_p, &sums_[l].seq_counts})
        v->assign(std::size_t(shape_.experts[l]), 0);
    }
  }

  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.entropy = has_.entropy && !has_.logits;
    f.margin = has_.margin && !has_.logits;
    f.logsumexp = has_.logsumexp && !has_.logits;
    f.logits = has_.logits;
    return f;
  }

  void observe_layer(const Window& w, Index l) override {
    Sums& s = sums_[std::size_t(l)];
    const LayerRows& rows = w.rows.layer[std::size_t(l)];
    for (const Index t : w.valid) {
      if (!rows.logits.empty()) {
        if (!std::isnan(rows.logits(t, 0)))
          logits(s, rows.logits.row(t).first(std::size_t(shape_.experts[std::size_t(l)])), w, l, t);
        continue;
      }
      const auto take = [t](const std::vector<float>& from, double& sum, double& n, bool square) {
        if (from.empty() || std::isnan(from[std::size_t(t)]))
          return;
        const double v = from[std::size_t(t)];
        sum += square ? v * v : v;
        n += 1;
      };
      take(rows.entropy, s.entropy, s.entropy_tokens, false);
      take(rows.margin, s.margin, s.margin_tokens, false);
      take(rows.logsumexp, s.z, s.z_tokens, true);
    }
  }

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  static void logits(Sums& s, std::span<const float> z, const Window& w, Index l, Index t);
  static void end_sequence(Sums& s) {
    if (s.seq_assignments > 0) {
      s.aux_sum += switch_loss(s.seq_counts, s.seq_p, s.seq_assignments, s.seq_tokens);
      s.sequences += 1;
    }
    std::fill(s.seq_p.begin(), s.seq_p.end(), 0);
    std::fill(s.seq_counts.begin(), s.seq_counts.end(), 0);
    s.seq_tokens = s.seq_assignments = 0;
  }
  double aux_concat() const;
  void more(Report&, const std::vector<MetricValue>&) const;

  Shape shape_;
  TraceFields has_;
  std::vector<Sums> sums_;
};

void Router::logits(Sums& s, std::span<const float> z, const Window& w, Index l, Index t) {
  const double top = *std::max_element(z.begin(), z.end());
  if (!std::isfinite(top) || std::any_of(z.begin(), z.end(), [](float v) { return std::isnan(v); }))
    return void(++s.strange);
  std::vector<double> p;
  double total = 0;
  for (const float v : z) {
    p.push_back(std::exp(double(v) - top));
    total += p.back();
  }
  if (w.rows.sequence[std::size_t(t)] != s.sequence) {
    end_sequence(s);
    s.sequence = w.rows.sequence[std::size_t(t)];
  }
  const double experts = double(z.size());
  for (std::size_t e = 0; e < p.size(); ++e) {
    p[e] /= total;
    s.mean_p[e] += p[e];
    s.seq_p[e] += p[e];
    if (p[e] > 0)
      s.entropy -= p[e] * std::log(p[e]);
    s.variance += (p[e] - 1 / experts) * (p[e] - 1 / experts) / experts;
  }
  const auto chosen = w.layer[std::size_t(l)].of(t);
  for (const int e : chosen) {
    s.topk += p[std::size_t(e)];
    s.counts[std::size_t(e)] += 1;
    s.seq_counts[std::size_t(e)] += 1;
  }
  s.assignments += double(chosen.size());
  s.seq_assignments += double(chosen.size());
  std::sort(p.rbegin(), p.rend());
  const std::size_t k = chosen.size();
  if (k > 0) {
    s.margin += p[k - 1] - (k < p.size() ? p[k] : 0);
    s.margin_tokens += 1;
  }
  s.top1 += p[0];
  s.ratio.add(p.size() > 1 ? float(p[1] / p[0]) : 0);
  const double lse = top + std::log(total);
  s.z += lse * lse;
  s.tokens += 1;
  s.seq_tokens += 1;
  s.entropy_tokens += 1;
  s.z_tokens += 1;
}

double Router::aux_concat() const {
  if (sums_.empty())
    return no_value;
  const std::size_t experts = std::size_t(shape_.max_experts());
  std::vector<double> counts(experts, 0);
  std::vector<double> p(experts, 0);
  double rows = 0;
  for (const Sums& s : sums_) {
    if (s.counts.size() != experts)
      return no_value;  // defined for layers of one width
    for (std::size_t e = 0; e < experts; ++e) {
      counts[e] += s.counts[e];
      p[e] += s.mean_p[e];
    }
    rows += s.tokens;
  }
  return switch_loss(counts, p, rows, rows);
}

std::vector<MetricValue> Router::values() const {
  std::map<std::string, std::vector<double>> v;
  for (std::size_t l = 0; l < sums_.size(); ++l) {
    Sums s = sums_[l];
    end_sequence(s);
    const double log_e = std::log(double(shape_.experts[l]));
    v["router_entropy"].push_back(s.entropy / s.entropy_tokens);
    v["router_entropy_norm"].push_back(log_e > 0              ? s.entropy / s.entropy_tokens / log_e
                                       : s.entropy_tokens > 0 ? 0
                                                              : no_value);
    v["router_margin"].push_back(s.margin / s.margin_tokens);
    v["router_z"].push_back(s.z / s.z_tokens);
    double mixed = 0;
    for (const double p : s.mean_p) {
      if (p > 0)
        mixed -= p / s.tokens * std::log(p / s.tokens);
    }
    v["router_mutual_information"].push_back(mixed - s.entropy / s.entropy_tokens);
    v["router_top1_mass"].push_back(s.top1 / s.tokens);
    v["router_topk_mass"].push_back(s.topk / s.tokens);
    v["router_second_ratio_median"].push_back(s.ratio.value());
    v["router_gate_variance"].push_back(s.variance / s.tokens);
    v["aux_switch"].push_back(switch_loss(s.counts, s.mean_p, s.assignments, s.tokens));
    v["aux_sequence"].push_back(s.aux_sum / s.sequences);
  }
  std::vector<MetricValue> out;
  for (const auto& [id, values] : v) {
    const bool stored = (has_.entropy && id.starts_with("router_entropy")) ||
                        (has_.margin && id == "router_margin") ||
                        (has_.logsumexp && id == "router_z");
    if (has_.logits || stored)
      out.push_back(per_layer(id.c_str(), values));
  }
  if (has_.logits)
    out.push_back({"aux_concat", {}, {aux_concat()}});
  return out;
}

// The other figures, by layer; and the loss that is one number for all layers.
void Router::more(Report& r, const std::vector<MetricValue>& all) const {
  Table t{"router_more",
          "The router's confidence and balance losses by other definitions",
          "Each figure under the id of its definition (docs/metrics.md). The chance values are "
          "those of equal logits; losses are without their coefficient.",
          Chart::none,
          {column({"layer", "", "absolute layer number", ""}, shape_.number)},
          section::router,
          true,
          {}};
  const auto each = [&](double (*of)(double)) {
    std::vector<double> out;
    for (const int e : shape_.experts)
      out.push_back(of(double(e)));
    return out;
  };
  const auto zero = each([](double) { return 0.0; });
  const auto one = each([](double) { return 1.0; });
  const auto log = each([](double e) { return std::log(e); });
  const auto square = each([](double e) { return std::log(e) * std::log(e); });
  const auto ratio = each([](double e) { return e > 1 ? 1.0 : 0.0; });
  const std::pair<Note, const std::vector<double>*> notes[] = {
      {{"entropy", "nats", "mean entropy of the router's distribution", "router_entropy"}, &log},
      {{"information", "nats",
        "entropy of the mean distribution less the mean entropy: how far p depends on the token",
        "router_mutual_information", 4},
       &zero},
      {{"second over first", "", "median of the second largest probability over the largest",
        "router_second_ratio_median"},
       &ratio},
      {{"variance", "", "mean over tokens of the variance of p over experts",
        "router_gate_variance", 5},
       &zero},
      {{"z", "nats²", "mean squared logsumexp of the logits (z-loss)", "router_z", 2}, &square},
      {{"Switch loss", "", "E sum f p over the layer", "aux_switch"}, &one},
      {{"sequence loss", "", "mean over sequences of the Switch loss of each", "aux_sequence"},
       &one}};
  for (const MetricValue& m : all) {
    for (const auto& [note, null] : notes) {
      if (m.id == note.metric)
        t.columns.push_back(column(note, m.values, *null));
    }
    if (m.id != "aux_concat" || std::isnan(m.values[0]))
      continue;
    double choices = 0;
    double tokens = 0;
    for (const Sums& s : sums_) {
      choices += s.assignments;
      tokens += s.tokens;
    }
    r.tables.push_back(
        {"aux_concat",
         "The balance loss over all layers at once",
         "As Hugging Face computes it, without its coefficient: at balance and for equal logits it "
         "is K, not 1.",
         Chart::none,
         {column({"layers", "", "MoE layers", ""}, std::vector<std::int64_t>{shape_.layers()}),
          column({"loss", "", "E sum f p, both over all layers and tokens together", "aux_concat"},
                 m.values, std::vector<double>{choices / tokens})},
         section::router,
         true,
         {}});
  }
  if (t.columns.size() > 1)
    r.tables.push_back(std::move(t));
}

void Router::report(Report& r) const {
  const auto all = values();
  const auto find = [&](const char* id) {
    const auto at =
        std::find_if(all.begin(), all.end(), [&](const MetricValue& m) { return m.id == id; });
    return at == all.end() ? std::vector<double>{} : at->values;
  };
  std::int64_t strange = 0;
  for (const Sums& s : sums_)
    strange += s.strange;
  if (strange) {
    r.warnings.push_back(
        std::to_string(strange) +
        " rows of logits hold NaN or infinity: how sure the router is is told without them");
  }
  if (all.empty()) {
    return r.warnings.push_back(
        "the trace holds neither logits nor router entropy: how sure the router is cannot be told");
  }
  std::vector<double> zero(sums_.size(), 0);
  std::vector<double> one(sums_.size(), 1);
  std::vector<double> share;
  std::vector<double> mass;
  for (std::size_t l = 0; l < sums_.size(); ++l) {
    share.push_back(1.0 / shape_.experts[l]);
    mass.push_back(double(shape_.top_k[l]) / shape_.experts[l]);
  }
  Table t{"router",
          "How sure the router is",
          "Entropy 1 and margin 0 are a router that cannot tell the experts apart (all logits "
          "equal), entropy 0 one that is certain. "
          "A small margin means that small numerical noise changes the choice. The chance values "
          "are those of equal logits.",
          Chart::lines,
          {column({"layer", "", "absolute layer number", ""}, shape_.number)},
          section::router,
          false,
          {}};
  const auto add = [&](const Note& n, const std::vector<double>& null) {
    if (auto v = find(n.metric); !v.empty())
      t.columns.push_back(column(n, std::move(v), null));
  };
  add({"entropy", "of ln E",
       "mean entropy of the router's distribution over its largest value ln E",
       "router_entropy_norm"},
      one);
  add({"margin", "probability", "mean gap between the last chosen expert and the first not chosen",
       "router_margin", 4},
      zero);
  add({"first choice", "probability", "mean probability of the first choice", "router_top1_mass"},
      share);
  add({"chosen", "probability", "mean probability of all chosen experts together",
       "router_topk_mass"},
      mass);
  r.tables.push_back(t);
  more(r, all);
  if (const auto e = find("router_entropy_norm"); !e.empty()) {
    const auto [low, high] = std::minmax_element(e.begin(), e.end());
    if (!std::isnan(*low)) {
      r.findings.push_back("The router is surest in layer " +
                           std::to_string(shape_.number[std::size_t(low - e.begin())]) +
                           " (entropy " + figure(*low) + " of ln E) and least sure in layer " +
                           std::to_string(shape_.number[std::size_t(high - e.begin())]) + " (" +
                           figure(*high) + "); equal logits would give 1.");
    }
  }
}

}  // namespace

std::unique_ptr<Metric> make_router_metric(Spec&, const TraceSource& trace, const AnalyzeOptions&) {
  return std::make_unique<Router>(trace);
}

}  // namespace moe
