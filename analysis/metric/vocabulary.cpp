#include "analysis/metric/vocabulary.h"

#include <cmath>

#include "analysis/metric/joint.h"

namespace moe {

VocabularyMetric::VocabularyMetric(Spec& spec, const TraceSource& trace,
                                   const AnalyzeOptions& options)
    : shape_(trace),
      min_count_(spec.get("min_count", 10, 1)),
      top_(spec.get("top", 8, 1)),
      alone_(spec.get("alone", 0.9, 0.0)),
      pieces_(trace.header()),
      state_(shape_.experts.size()) {
  // Where ids x experts of every layer would not fit, fewer layers are counted, evenly spread.
  const double ids =
      std::min(double(trace.header().vocab_size ? trace.header().vocab_size : 0xFFFFFFFFu),
               double(trace.tokens()));
  const double layer = ids * (8.0 * shape_.max_experts() + 96);
  const Index fit =
      std::max<Index>(1, Index(std::min(1e6, double(options.memory) / std::max(1.0, layer))));
  counted_ = shown_layers(shape_.layers(), fit);
}

TraceFields VocabularyMetric::needs() const {
  return no_fields;
}

void VocabularyMetric::observe_layer(const Window& w, Index l) {
  if (!std::binary_search(counted_.begin(), counted_.end(), l))
    return;
  State& s = state_[l];
  const std::size_t experts = std::size_t(shape_.experts[l]);
  const LayerChoices& c = w.layer[l];
  s.ranked = c.ranked;
  for (std::size_t i = 0; i < w.valid.size(); ++i) {
    const Index t = w.valid[i];
    if (i + 8 < w.valid.size())
      s.fetch(w.rows.token_id[w.valid[i + 8]]);
    const std::uint32_t id = w.rows.token_id[t];
    if (id == withheld_token)
      continue;
    Id& v = s.ids[s.at(id, experts)];
    ++v.seen;
    ++s.tokens;
    for (const int e : c.of(t)) {
      ++v.chosen[e];
      ++s.assignments;
    }
    if (c.first(t) >= 0)
      ++v.first[c.first(t)];
  }
}

bool VocabularyMetric::any() const {
  return !counted_.empty() && !state_[counted_[0]].ids.empty();
}

std::size_t VocabularyMetric::State::at(std::uint32_t id, std::size_t experts) {
  constexpr std::uint32_t few = 65536;
  if (id < few && id >= low.size())
    low.resize(std::min<std::size_t>(few, 2 * std::size_t(id) + 256), 0);
  if (id < few && low[id])
    return low[id] - 1;
  const auto next = ids.size();
  if (id >= few) {
    if (const auto [found, fresh] = row.try_emplace(id, next); !fresh)
      return found->second;
  } else {
    low[id] = std::uint32_t(next + 1);
  }
  ids.push_back(
      {id, 0, std::vector<std::uint32_t>(experts, 0), std::vector<std::uint32_t>(experts, 0)});
  return next;
}
void VocabularyMetric::State::fetch(std::uint32_t id) const {
  if (id >= low.size() || !low[id])
    return;
  const Id& v = ids[low[id] - 1];
  for (std::size_t e = 0; e < std::min<std::size_t>(v.chosen.size(), 256); e += 16) {
    __builtin_prefetch(&v.chosen[e], 1);
    __builtin_prefetch(&v.first[e], 1);
  }
}

VocabularyMetric::Figures VocabularyMetric::figures(std::size_t l) const {
  const State& s = state_[l];
  const std::size_t experts = std::size_t(shape_.experts[l]);
  Figures f;
  f.expert.assign(experts, s.ids.empty() ? -1 : 0);
  f.alone.assign(experts, s.ranked ? 0 : no_value);
  if (s.ids.empty())
    return f;
  std::vector<std::int64_t> own(experts, 0);
  Counts joint(Index(s.ids.size()), Index(experts));
  double sum = 0;
  double most = 0;
  for (std::size_t i = 0; i < s.ids.size(); ++i) {
    const Id& v = s.ids[i];
    std::copy(v.chosen.begin(), v.chosen.end(), joint.row(Index(i)).begin());
    sum += v.specialisation();
    most += double(v.chosen[v.favourite()]);
    f.expert[v.favourite()] += v.specialisation();
    ++own[v.favourite()];
  }
  for (std::size_t e = 0; e < experts; ++e)
    f.expert[e] = own[e] ? f.expert[e] / double(own[e]) : -1;
  f.unweighted = sum / double(s.ids.size());
  f.weighted = most / double(s.tokens);
  f.mi = mutual_information_bits(joint);
  const double h = entropy_bits(column_sums(joint));
  f.uncertainty = h > 0 || std::isnan(f.mi) ? f.mi / h : 0;
  of_frequent(s, f);
  return f;
}

// The figures over ids seen at least min_count times.
void VocabularyMetric::of_frequent(const State& s, Figures& f) const {
  const std::size_t experts = f.expert.size();
  double sum = 0;
  double spread = 0;
  std::int64_t often = 0;
  for (const Id& v : s.ids) {
    if (v.seen < min_count_)
      continue;
    ++often;
    sum += v.specialisation();
    const double all = double(std::accumulate(v.chosen.begin(), v.chosen.end(), std::uint64_t{0}));
    const double mean = 1 / double(experts);
    double square = 0;
    for (const std::uint32_t c : v.chosen)
      square += (double(c) / all - mean) * (double(c) / all - mean) / double(experts);
    spread += all > 0 ? std::sqrt(square) : 0;
    for (std::size_t e = 0; e < experts; ++e) {
      if (double(v.first[e]) >= alone_ * double(v.seen) && v.first[e])
        f.alone[e] += double(v.seen) / double(s.tokens);
    }
  }
  if (often == 0)
    return;
  f.frequent = sum / double(often);
  f.context_std = spread / double(often);
}

// How often an id was seen decides what chance gives.
VocabularyMetric::Chances VocabularyMetric::chances(std::size_t l) const {
  const State& s = state_[l];
  const int experts = shape_.experts[l];
  const int k = whole_choices(double(s.assignments) / double(s.tokens), experts);
  chance::Labels& label = store().labels(experts, k);
  Often often;
  for (const Id& v : s.ids)
    ++often[v.seen];
  Chances c;
  chance_of_shares(s, experts, often, label, c);
  c.expert = chance_by_expert(std::size_t(experts), often, label);
  std::vector<std::int64_t> seen;
  for (const auto& [count, n] : often)
    seen.insert(seen.end(), std::size_t(n), count);
  c.mi = label.mi_bits(seen);
  const double h = label.entropy(s.tokens).mean;
  c.uncertainty = h > 0 ? chance::Value{c.mi.mean / h, c.mi.spread / h} : chance::Value{0, 0};
  return c;
}

void VocabularyMetric::chance_of_shares(const State& s, double experts, const Often& often,
                                        chance::Labels& label, Chances& c) const {
  const double ids = double(s.ids.size());
  const double tokens = double(s.tokens);
  // spreads are summed as squares
  const auto add = [](chance::Value& sum, const chance::Value& v, double weight, double n) {
    sum.mean += weight * n * v.mean;
    sum.spread += weight * weight * n * v.spread * v.spread;
  };
  double frequent = 0;
  for (const auto& [count, n] : often)
    frequent += count >= min_count_ ? double(n) : 0;
  for (const auto& [count, n] : often) {
    const chance::Value share = label.share(count);
    add(c.unweighted, share, 1 / ids, double(n));
    add(c.weighted, share, double(count) / tokens, double(n));
    if (count < min_count_)
      continue;
    add(c.frequent, share, 1 / frequent, double(n));
    add(c.context_std, label.deviation(count), 1 / frequent, double(n));
    c.alone += first_tail(count, experts) * double(count) / tokens * double(n);
  }
  for (auto* sum : {&c.unweighted, &c.weighted, &c.frequent, &c.context_std})
    sum->spread = std::sqrt(sum->spread);
}

std::vector<double> VocabularyMetric::chance_by_expert(std::size_t experts, const Often& often,
                                                       chance::Labels& label) {
  std::vector<double> prefer(experts, 0);
  std::vector<double> taken(experts, 0);
  for (const auto& [count, n] : often) {
    const chance::Label& near = label.nearest(count);
    for (std::size_t e = 0; e < experts; ++e) {
      prefer[e] += double(n) * near.favourite[e];
      taken[e] += double(n) * near.favourite[e] * near.favourite_share[e];
    }
  }
  std::vector<double> out;
  for (std::size_t e = 0; e < experts; ++e)
    out.push_back(prefer[e] > 0 ? taken[e] / prefer[e] : no_value);
  return out;
}

double VocabularyMetric::first_tail(std::int64_t count, double e) const {
  if (count > 4096 || e <= 1)
    return e <= 1;
  double tail = 0;
  const double n = double(count);
  for (double x = std::ceil(alone_ * n); x <= n; ++x) {
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(x + 1) - std::lgamma(n - x + 1) -
                     x * std::log(e) + (n - x) * std::log1p(-1 / e));
  }
  return tail;
}

std::vector<MetricValue> VocabularyMetric::values() const {
  if (counted_.empty())
    return {};
  std::map<std::string, std::vector<double>> v;
  std::vector<std::vector<double>> expert, alone;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Figures f = figures(l);
    v["vocab_spec_unweighted"].push_back(f.unweighted);
    v["vocab_spec_weighted"].push_back(f.weighted);
    v["vocab_spec_min_count"].push_back(f.frequent);
    v["token_expert_mi_bits"].push_back(f.mi);
    v["token_uncertainty"].push_back(f.uncertainty);
    v["token_context_std"].push_back(f.context_std);
    expert.push_back(f.expert);
    alone.push_back(f.alone);
  }
  std::vector<MetricValue> out{per_layer("vocab_spec_expert", expert),
                               per_layer("load_exclusive_coverage", alone)};
  for (const auto& [id, values] : v)
    out.push_back(per_layer(id.c_str(), values));
  return out;
}

std::unique_ptr<Metric> make_vocabulary_metric(Spec& spec, const TraceSource& trace,
                                               const AnalyzeOptions& o) {
  return std::make_unique<VocabularyMetric>(spec, trace, o);
}

}  // namespace moe
