#include "analysis/metric/router.h"

#include <algorithm>
#include <cmath>

namespace moe {
namespace {

double switch_loss(const std::vector<double>& counts, const std::vector<double>& p,
                   double assignments, double tokens) {
  double sum = 0;
  for (std::size_t e = 0; e < counts.size(); ++e)
    sum += counts[e] / assignments * (p[e] / tokens);
  return double(counts.size()) * sum;
}

}  // namespace

double entropy_of_logits(std::span<const float> z) {
  const double top = *std::max_element(z.begin(), z.end());
  double total = 0;
  double weighed = 0;
  for (const float v : z) {
    const double p = std::exp(double(v) - top);
    total += p;
    weighed += p > 0 ? p * (double(v) - top) : 0;
  }
  return std::log(total) - weighed / total;
}

RouterMetric::RouterMetric(const TraceSource& trace)
    : shape_(trace), has_(trace.fields()), sums_(shape_.experts.size()) {
  for (std::size_t l = 0; l < sums_.size(); ++l) {
    for (auto* v : {&sums_[l].mean_p, &sums_[l].counts, &sums_[l].seq_p, &sums_[l].seq_counts})
      v->assign(std::size_t(shape_.experts[l]), 0);
  }
}

TraceFields RouterMetric::needs() const {
  TraceFields f = no_fields;
  f.entropy = has_.entropy && !has_.logits;
  f.margin = has_.margin && !has_.logits;
  f.logsumexp = has_.logsumexp && !has_.logits;
  f.logits = has_.logits;
  return f;
}

void RouterMetric::observe_layer(const Window& w, Index l) {
  Sums& s = sums_[l];
  const LayerRows& rows = w.rows.layer[l];
  const auto experts = std::size_t(shape_.experts[l]);
  for (const Index t : w.valid) {
    if (rows.logits.empty()) {
      stored(s, rows, t);
    } else if (!std::isnan(rows.logits(t, 0))) {
      logits(s, rows.logits.row(t).first(experts), w.rows.sequence[t], w.layer[l].of(t));
    }
  }
}

void RouterMetric::stored(Sums& s, const LayerRows& rows, Index t) {
  const auto take = [t](const std::vector<float>& from, double& sum, double& n, bool square) {
    if (from.empty() || std::isnan(from[t]))
      return;
    const double v = from[t];
    sum += square ? v * v : v;
    n += 1;
  };
  take(rows.entropy, s.entropy, s.entropy_tokens, false);
  double counted = 0;
  take(rows.entropy, s.entropy_squares, counted, true);
  take(rows.margin, s.margin, s.margin_tokens, false);
  take(rows.logsumexp, s.z, s.z_tokens, true);
}

void RouterMetric::end_sequence(Sums& s) {
  if (s.seq_assignments > 0) {
    s.aux_sum += switch_loss(s.seq_counts, s.seq_p, s.seq_assignments, s.seq_tokens);
    s.sequences += 1;
  }
  std::fill(s.seq_p.begin(), s.seq_p.end(), 0);
  std::fill(s.seq_counts.begin(), s.seq_counts.end(), 0);
  s.seq_tokens = s.seq_assignments = 0;
}

void RouterMetric::logits(Sums& s, std::span<const float> z, std::uint32_t sequence,
                          std::span<const int> chosen) {
  const double top = *std::max_element(z.begin(), z.end());
  std::vector<double> p;
  double total = 0;
  for (const float v : z) {
    p.push_back(std::exp(double(v) - top));
    total += p.back();
  }
  for (double& share : p)
    share /= total;
  if (sequence != s.sequence) {
    end_sequence(s);
    s.sequence = sequence;
  }
  add_probabilities(s, p);
  add_chosen(s, std::move(p), chosen);
  const double lse = top + std::log(total);
  s.z += lse * lse;
  s.tokens += 1;
  s.seq_tokens += 1;
  s.entropy_tokens += 1;
  s.z_tokens += 1;
}

void RouterMetric::add_probabilities(Sums& s, std::span<const double> p) {
  const double experts = double(p.size());
  double entropy = 0;
  for (std::size_t e = 0; e < p.size(); ++e) {
    s.mean_p[e] += p[e];
    s.seq_p[e] += p[e];
    if (p[e] > 0)
      entropy -= p[e] * std::log(p[e]);
    s.variance += (p[e] - 1 / experts) * (p[e] - 1 / experts) / experts;
  }
  s.entropy += entropy;
  s.entropy_squares += entropy * entropy;
}

void RouterMetric::add_chosen(Sums& s, std::vector<double> p, std::span<const int> chosen) {
  for (const int e : chosen) {
    s.topk += p[e];
    s.counts[e] += 1;
    s.seq_counts[e] += 1;
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
}

double RouterMetric::aux_concat() const {
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

namespace {

// Of the distribution averaged over tokens, nats.
double entropy_of_mean(const std::vector<double>& sums, double tokens) {
  double out = 0;
  for (const double p : sums) {
    if (p > 0)
      out -= p / tokens * std::log(p / tokens);
  }
  return out;
}

}  // namespace

std::vector<MetricValue> RouterMetric::values() const {
  std::map<std::string, std::vector<double>> v;
  for (std::size_t l = 0; l < sums_.size(); ++l) {
    Sums s = sums_[l];
    end_sequence(s);
    const double log_e = std::log(double(shape_.experts[l]));
    const double entropy = s.entropy / s.entropy_tokens;
    const double of_one_expert = s.entropy_tokens > 0 ? 0 : no_value;
    v["router_entropy"].push_back(entropy);
    v["router_entropy_norm"].push_back(log_e > 0 ? entropy / log_e : of_one_expert);
    v["router_margin"].push_back(s.margin / s.margin_tokens);
    v["router_z"].push_back(s.z / s.z_tokens);
    v["router_mutual_information"].push_back(entropy_of_mean(s.mean_p, s.tokens) - entropy);
    v["router_top1_mass"].push_back(s.top1 / s.tokens);
    v["router_topk_mass"].push_back(s.topk / s.tokens);
    v["router_second_ratio_median"].push_back(s.ratio.value());
    v["router_gate_variance"].push_back(s.variance / s.tokens);
    v["aux_switch"].push_back(switch_loss(s.counts, s.mean_p, s.assignments, s.tokens));
    v["aux_sequence"].push_back(s.aux_sum / s.sequences);
  }
  std::vector<MetricValue> out;
  for (const auto& [id, values] : v) {
    if (known(id))
      out.push_back(per_layer(id.c_str(), values));
  }
  if (has_.logits)
    out.push_back({"aux_concat", {}, {aux_concat()}});
  return out;
}

// From logits everything; without them what is stored per token.
bool RouterMetric::known(std::string_view id) const {
  return has_.logits || (has_.entropy && id.starts_with("router_entropy")) ||
         (has_.margin && id == "router_margin") || (has_.logsumexp && id == "router_z");
}

std::unique_ptr<Metric> make_router_metric(Spec&, const TraceSource& trace, const AnalyzeOptions&) {
  return std::make_unique<RouterMetric>(trace);
}

}  // namespace moe
