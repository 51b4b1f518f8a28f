#include "analysis/metric/load.h"

#include <cmath>
#include <numeric>
#include <utility>

#include "analysis/metric/count_pass.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct OneFigure {
  const char* id;
  double LoadFigures::*of;
};
constexpr OneFigure one_figures[] = {{"load_cv", &LoadFigures::cv},
                                     {"load_cv_sample", &LoadFigures::cv_sample},
                                     {"load_max_over_mean", &LoadFigures::max_over_mean},
                                     {"load_max_over_min", &LoadFigures::max_over_min},
                                     {"load_maxvio_global", &LoadFigures::maxvio},
                                     {"load_avgvio", &LoadFigures::avgvio},
                                     {"load_minvio", &LoadFigures::minvio},
                                     {"load_entropy", &LoadFigures::entropy},
                                     {"load_entropy_norm", &LoadFigures::entropy_norm},
                                     {"load_effective_experts", &LoadFigures::effective},
                                     {"load_jain", &LoadFigures::jain},
                                     {"load_gini", &LoadFigures::gini},
                                     {"load_dead_fraction", &LoadFigures::dead_fraction}};
constexpr const char* list_figures[] = {"load_topn_coverage", "load_topn_concentration",
                                        "tile_padding_waste"};
// now and then infinite: its chance value is a median
constexpr std::string_view median_figure = "load_max_over_min";

// One layer's figures under their ids, those of a list option as one more row of it.
void add_figures(const std::vector<std::pair<std::string, double>>& figures,
                 std::map<std::string, std::vector<double>>& one,
                 std::map<std::string, std::vector<std::vector<double>>>& lists) {
  for (const char* id : list_figures)
    lists[id].push_back({});
  for (const auto& [id, value] : figures) {
    const std::size_t blank = id.find(' ');
    if (blank == id.npos)
      one[id].push_back(value);
    else
      lists[id.substr(0, blank)].back().push_back(value);
  }
}

}  // namespace

LoadMetric::LoadMetric(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
    : shape_(trace),
      topn_(whole_list_of(spec, "topn", "1,2,4", 1)),
      tiles_(whole_list_of(spec, "tile_sizes", "16,128", 1)),
      cv_(threshold_of("load_cv", o.thresholds)),
      maxvio_(threshold_of("load_maxvio_global", o.thresholds)),
      dead_(threshold_of("load_dead_fraction", o.thresholds)),
      has_weights_(trace.fields().weights && !counts_only(trace)),
      counted_(counts_only(trace)) {
  for (const int e : shape_.experts) {
    layer_.push_back({});
    layer_.back().counts.assign(std::size_t(e), 0);
    layer_.back().step_counts.assign(std::size_t(e), 0);
    layer_.back().importance.assign(std::size_t(e), 0);
  }
}

TraceFields LoadMetric::needs() const {
  TraceFields f = no_fields;
  f.weights = has_weights_;
  return f;
}

void LoadMetric::observe_layer(const Window& w, Index l) {
  State& s = layer_[l];
  for (std::size_t i = 0; i < w.valid.size();) {
    const std::uint32_t step = w.rows.step[w.valid[i]];
    if (step != s.step) {
      end_step(s);
      s.step = step;
    }
    const std::size_t from = i;
    while (i < w.valid.size() && w.rows.step[w.valid[i]] == step)
      ++i;
    count_step(s, w, w.layer[l], from, i);
    s.step_tokens += std::int64_t(i - from);
  }
  s.tokens += std::int64_t(w.valid.size());
  add_weights(s, w, l);
}

void LoadMetric::observe_counts(const CountWindow& w, Index l) {
  State& s = layer_[l];
  for (Index step = 0; step < w.count(); ++step) {
    const auto counts = w.of(step, l);
    for (std::size_t e = 0; e < counts.size(); ++e) {
      s.counts[e] += counts[e];
      s.step_counts[e] += counts[e];
    }
    s.step_tokens = w.tokens(step, l);
    add_tokens(s.tokens, s.step_tokens);
    end_step(s);
  }
}

// Rows `from` to `to` of the valid ones, all of one step.
void LoadMetric::count_step(State& s, const Window& w, const LayerChoices& c, std::size_t from,
                            std::size_t to) {
  // no padding in between
  const bool dense = c.full && w.valid[to - 1] - w.valid[from] == Index(to - 1 - from);
  if (dense && Index(to - from) * c.width > Index(2 * s.counts.size()))
    return add_counts(c.of(w.valid[from]).data(), Index(to - from) * c.width, s);
  for (std::size_t i = from; i < to; ++i) {
    for (const int e : c.of(w.valid[i])) {
      ++s.counts[e];
      ++s.step_counts[e];
    }
  }
}

// Neighbouring ids are often equal or near, and adding twice to one place waits for the first: two
// tables take turns.
void LoadMetric::add_counts(const int* id, Index n, State& s) {
  thread_local std::vector<std::uint32_t> table;
  const std::size_t experts = s.counts.size();
  table.assign(2 * experts, 0);
  std::uint32_t* even = table.data();
  std::uint32_t* odd = even + experts;
  Index i = 0;
  for (; i + 4 <= n; i += 4) {
    ++even[id[i]];
    ++odd[id[i + 1]];
    ++even[id[i + 2]];
    ++odd[id[i + 3]];
  }
  for (; i < n; ++i)
    ++even[id[i]];
  for (std::size_t e = 0; e < experts; ++e) {
    s.counts[e] += std::int64_t{even[e]} + odd[e];
    s.step_counts[e] += std::int64_t{even[e]} + odd[e];
  }
}

void LoadMetric::add_weights(State& s, const Window& w, Index l) {
  const LayerRows& rows = w.rows.layer[l];
  if (rows.weight.empty())
    return;
  const auto& odd = w.odd_weights[l];
  for (const Index t : w.valid) {
    if (!odd.empty() && odd[t])
      continue;
    double sum = 0;
    for (Index j = 0; j < rows.expert.cols(); ++j) {
      const int e = rows.expert(t, j);
      const double weight = rows.weight(t, j);
      if (e < 0 || !std::isfinite(weight))  // NaN: the reader warns
        continue;
      s.importance[e] += weight;
      sum += weight;
      s.weight_squares += weight * weight;
    }
    s.token_squares += sum * sum;
  }
}

void LoadMetric::end_step(State& s) {
  const LoadFigures f = load_figures(s.step_counts);
  const std::int64_t tokens = std::exchange(s.step_tokens, 0);
  if (f.assignments == 0)
    return;
  s.sizes.add(tokens);
  s.step_cv += f.cv;
  s.step_maxvio += f.maxvio;
  std::fill(s.step_counts.begin(), s.step_counts.end(), 0);
}

LoadMetric::Done LoadMetric::done(std::size_t l) const {
  State s = layer_[l];
  end_step(s);
  const LoadFigures f = load_figures(s.counts);
  const double steps = double(s.sizes.steps());
  const double tokens = s.tokens < 0 ? no_value : double(s.tokens);
  return {f,      s.step_cv / steps, s.step_maxvio / steps, double(f.assignments) / tokens, tokens,
          s.sizes};
}

LoadMetric::Figures LoadMetric::figures(const LoadFigures& f,
                                        std::span<const std::int64_t> counts) const {
  Figures out;
  for (const OneFigure& one : one_figures)
    out.emplace_back(one.id, f.*one.of);
  const double experts = double(counts.size());
  for (const int n : topn_) {
    const double share = load_topn_coverage(counts, n);
    out.emplace_back(concat("load_topn_coverage ", n), share);
    out.emplace_back(concat("load_topn_concentration ", n),
                     share / (std::min(double(n), experts) / experts));
  }
  for (const int m : tiles_)
    out.emplace_back(concat("tile_padding_waste ", m), tile_padding_waste(counts, m));
  return out;
}

LoadMetric::ByChance LoadMetric::simulated(Memo& memo, int experts, int k,
                                           std::int64_t tokens) const {
  const Figures even = figures({}, std::vector<std::int64_t>(std::size_t(experts), 1));
  int median_of = 0;
  while (even[median_of].first != median_figure)
    ++median_of;
  const auto& all = memo.get({double(experts), double(k), double(tokens)}, [&] {
    const auto of = [&](std::span<const std::int64_t> c) {
      std::vector<double> out;
      for (const auto& [id, value] : figures(load_figures(c), c))
        out.push_back(value);
      return out;
    };
    return chance::simulate_load(experts, k, tokens, even.size(), of, median_of);
  });
  ByChance out;
  for (std::size_t i = 0; i < even.size(); ++i)
    out.emplace(even[i].first, all[i]);
  return out;
}

double LoadMetric::importance_cv(const State& s) {
  const double experts = double(s.importance.size());
  const double mean = std::accumulate(s.importance.begin(), s.importance.end(), 0.0) / experts;
  double square = 0;
  for (const double i : s.importance)
    square += (i - mean) * (i - mean) / experts;
  return mean != 0 ? std::sqrt(square) / mean : no_value;
}

// A token's weights fall on distinct experts at random: sqrt((E sum w^2 - sum (sum of a token's
// w)^2) / W^2).
double LoadMetric::importance_chance(const State& s) {
  const double experts = double(s.importance.size());
  const double all = std::accumulate(s.importance.begin(), s.importance.end(), 0.0);
  return all != 0 ? std::sqrt(std::max(0.0, experts * s.weight_squares - s.token_squares)) /
                        std::abs(all) * chance::mean_root(experts - 1)
                  : no_value;
}

std::vector<MetricValue> LoadMetric::values() const {
  std::vector<std::vector<double>> counts, fraction, use, importance;
  // those of list options by id, (L,n); the others by id, (L)
  std::map<std::string, std::vector<std::vector<double>>> lists;
  std::map<std::string, std::vector<double>> one;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const State& s = layer_[l];
    const Done d = done(l);
    const double n = double(d.all.assignments);
    counts.emplace_back(s.counts.begin(), s.counts.end());
    fraction.emplace_back();
    use.emplace_back();
    for (const double c : counts.back()) {
      fraction.back().push_back(c / n);
      use.back().push_back(c * double(s.counts.size()) / n);
    }
    importance.push_back(s.importance);
    add_figures(figures(d.all, s.counts), one, lists);
    one["load_cv_batch"].push_back(d.cv_batch);
    one["load_maxvio_batch"].push_back(d.maxvio_batch);
    if (has_weights_)
      one["importance_cv"].push_back(importance_cv(s));
  }
  std::vector<MetricValue> out{per_layer("load_counts", counts),
                               per_layer("load_fraction", fraction),
                               per_layer("load_utilization", use)};
  for (const char* id : list_figures)
    out.push_back(per_layer(id, lists[id]));
  if (has_weights_)
    out.push_back(per_layer("importance_sum", importance));
  for (const auto& [id, values] : one)
    out.push_back(per_layer(id.c_str(), values));
  return out;
}

Values LoadMetric::judged() const {
  Values all;
  Memo& memo = store().memo;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const Done d = done(l);
    const int e = shape_.experts[l];
    const int k = whole_choices(d.k, e);
    ByChance whole = simulated(memo, e, k, rounded(d.tokens));
    const double none = chance::load_dead(e, d.k, d.tokens);
    whole["load_dead_fraction"] = {none, std::sqrt(none * (1 - none) / e)};
    for (const auto& [id, value] : figures(d.all, layer_[l].counts)) {
      if (all[id].value.size() == l)  // a number may stand twice in a list option
        all[id].add(d.all.assignments > 0 ? value : no_value, whole.at(id));
    }
    const auto of_steps = [&](const char* id) {
      return d.sizes.mean(
          [&](std::int64_t tokens) { return simulated(memo, e, k, tokens).at(id); });
    };
    all["load_cv_batch"].add(d.cv_batch, of_steps("load_cv"));
    all["load_maxvio_batch"].add(d.maxvio_batch, of_steps("load_maxvio_global"));
    const double by_lot = importance_chance(layer_[l]);
    const chance::Value& cv = whole.at("load_cv");
    all["importance_cv"].add(importance_cv(layer_[l]), {by_lot, cv.spread / cv.mean * by_lot});
  }
  return all;
}

Evidence LoadMetric::evidence(const Threshold& t, const chance::Reach& reach) const {
  double judged = 0;  // layers
  for (const State& s : layer_)
    judged += load_figures(s.counts).assignments > 0;
  Judge out(t, reach);
  const bool known = tokens_known();
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const Done d = done(l);
    if (known)
      out.add({double(d.all.experts), d.k, d.tokens, judged});
    else
      out.add_assignments(d.all.experts, double(d.all.assignments), judged);
  }
  return out.take();
}

bool LoadMetric::tokens_known() const {
  return std::ranges::none_of(layer_, [](const State& s) { return s.tokens < 0; });
}

std::unique_ptr<Metric> make_load_metric(Spec& spec, const TraceSource& trace,
                                         const AnalyzeOptions& o) {
  return std::make_unique<LoadMetric>(spec, trace, o);
}

}  // namespace moe
