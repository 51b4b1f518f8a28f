// How evenly tokens spread over experts: the whole trace, and step by step where the trace has steps.
#include "lib/core/load.h"

#include <cmath>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"

namespace moe {
namespace {

class Load final : public Metric {
 public:
  Load(Spec& spec, const TraceSource& trace)
      : shape_(trace), topn_(whole_list_of(spec, "topn", "1,2,4", 1)), tiles_(whole_list_of(spec, "tile_sizes", "16,128", 1)), has_weights_(trace.fields().weights) {
    for (const int e : shape_.experts) {
      layer_.push_back({});
      layer_.back().counts.assign(std::size_t(e), 0);
      layer_.back().step_counts.assign(std::size_t(e), 0);
      layer_.back().importance.assign(std::size_t(e), 0);
    }
  }

  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.weights = has_weights_;
    return f;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = layer_[std::size_t(l)];
    const LayerRows& rows = w.rows.layer[std::size_t(l)];
    const LayerChoices& c = w.layer[std::size_t(l)];
    for (std::size_t i = 0; i < w.valid.size();) {
      const std::uint32_t step = w.rows.step[std::size_t(w.valid[i])];
      if (step != s.step) end_step(s), s.step = step;
      const std::size_t from = i;
      while (i < w.valid.size() && w.rows.step[std::size_t(w.valid[i])] == step) ++i;
      const bool dense = c.full && w.valid[i - 1] - w.valid[from] == Index(i - 1 - from);  // no padding in between
      if (dense && Index(i - from) * c.width > Index(2 * s.counts.size())) add_counts(c.of(w.valid[from]).data(), Index(i - from) * c.width, s);
      else
        for (std::size_t j = from; j < i; ++j)
          for (const int e : c.of(w.valid[j])) ++s.counts[std::size_t(e)], ++s.step_counts[std::size_t(e)];
    }
    s.tokens += std::int64_t(w.valid.size());
    if (rows.weight.empty()) return;
    for (const Index t : w.valid)
      for (Index j = 0; j < rows.expert.cols(); ++j)
        if (const int e = rows.expert(t, j); e >= 0 && std::isfinite(rows.weight(t, j))) s.importance[std::size_t(e)] += double(rows.weight(t, j));  // NaN: the reader warns
  }

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct State {
    std::vector<std::int64_t> counts, step_counts;
    std::vector<double> importance;
    std::int64_t tokens = 0, steps = 0;
    std::uint32_t step = 0;
    double step_cv = 0, step_maxvio = 0;
  };
  struct Done {  // of one layer
    LoadFigures all;
    double cv_batch, maxvio_batch, k, tokens, step_tokens;
  };

  // Neighbouring ids are often equal or near, and adding twice to one place waits for the first: two tables take turns.
  static void add_counts(const int* id, Index n, State& s) {
    thread_local std::vector<std::uint32_t> table;
    const std::size_t experts = s.counts.size();
    table.assign(2 * experts, 0);
    std::uint32_t *even = table.data(), *odd = even + experts;
    Index i = 0;
    for (; i + 4 <= n; i += 4) ++even[id[i]], ++odd[id[i + 1]], ++even[id[i + 2]], ++odd[id[i + 3]];
    for (; i < n; ++i) ++even[id[i]];
    for (std::size_t e = 0; e < experts; ++e) s.counts[e] += std::int64_t{even[e]} + odd[e], s.step_counts[e] += std::int64_t{even[e]} + odd[e];
  }
  static void end_step(State& s) {
    const LoadFigures f = load_figures(s.step_counts);
    if (f.assignments == 0) return;
    ++s.steps, s.step_cv += f.cv, s.step_maxvio += f.maxvio;
    std::fill(s.step_counts.begin(), s.step_counts.end(), 0);
  }
  Done done(std::size_t l) const {
    State s = layer_[l];
    end_step(s);
    const LoadFigures f = load_figures(s.counts);
    const double steps = double(s.steps), tokens = double(s.tokens);
    return {f, s.step_cv / steps, s.step_maxvio / steps, double(f.assignments) / tokens, tokens, tokens / steps};
  }
  static const std::vector<double>& simulated(Memo& memo, int experts, int k, std::int64_t tokens) {  // MaxVio, median of max/min
    return memo.get({double(experts), double(k), double(tokens)}, [&] {
      const auto of = [](std::span<const std::int64_t> c) { const LoadFigures f = load_figures(c); return std::vector<double>{f.maxvio, f.max_over_min}; };
      return chance::simulate_load(experts, k, tokens, 2, of, 200, 1);
    });
  }
  void summary(Report&) const;
  void shares(Report&) const;
  void histogram(Report&) const;
  void findings(Report&) const;

  Shape shape_;
  std::vector<int> topn_, tiles_;
  bool has_weights_;
  std::vector<State> layer_;
};

std::vector<MetricValue> Load::values() const {
  std::vector<std::vector<double>> counts, fraction, use, coverage, focus, importance, waste;
  std::map<std::string, std::vector<double>> one;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const State& s = layer_[l];
    const Done d = done(l);
    const double n = double(d.all.assignments), experts = double(s.counts.size());
    for (auto* rows : {&counts, &fraction, &use, &coverage, &focus, &waste}) rows->push_back({});
    for (const std::int64_t c : s.counts) {
      counts.back().push_back(double(c));
      fraction.back().push_back(double(c) / n);
      use.back().push_back(double(c) * experts / n);
    }
    for (const int top : topn_) {
      coverage.back().push_back(load_topn_coverage(s.counts, top));
      focus.back().push_back(coverage.back().back() / (std::min(double(top), experts) / experts));
    }
    for (const int tile : tiles_) waste.back().push_back(tile_padding_waste(s.counts, tile));
    importance.push_back(s.importance);
    double sum = 0, square = 0;
    for (const double i : s.importance) sum += i / experts;
    for (const double i : s.importance) square += (i - sum) * (i - sum) / experts;
    const std::pair<const char*, double> figures[] = {
        {"load_cv", d.all.cv}, {"load_cv_sample", d.all.cv_sample}, {"load_cv_batch", d.cv_batch}, {"load_max_over_mean", d.all.max_over_mean},
        {"load_max_over_min", d.all.max_over_min}, {"load_maxvio_global", d.all.maxvio}, {"load_maxvio_batch", d.maxvio_batch},
        {"load_avgvio", d.all.avgvio}, {"load_minvio", d.all.minvio}, {"load_entropy", d.all.entropy}, {"load_entropy_norm", d.all.entropy_norm},
        {"load_effective_experts", d.all.effective}, {"load_jain", d.all.jain}, {"load_gini", d.all.gini},
        {"load_dead_fraction", d.all.dead_fraction}, {"importance_cv", std::sqrt(square) / sum}};
    for (const auto& [id, value] : figures) one[id].push_back(value);
  }
  std::vector<MetricValue> out{per_layer("load_counts", counts), per_layer("load_fraction", fraction), per_layer("load_utilization", use),
                               per_layer("load_topn_coverage", coverage), per_layer("load_topn_concentration", focus),
                               per_layer("tile_padding_waste", waste)};
  if (has_weights_) out.push_back(per_layer("importance_sum", importance));
  for (const auto& [id, values] : one)
    if (has_weights_ || id != "importance_cv") out.push_back(per_layer(id.c_str(), values));
  return out;
}

void Load::summary(Report& r) const {
  struct Series { std::vector<double> value, chance; };
  std::map<std::string, Series> s;
  std::vector<std::int64_t> dead;
  Memo memo;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const Done d = done(l);
    const double e = shape_.experts[l];
    const int k = std::max(1, int(rounded(d.k)));
    const std::vector<double> whole = simulated(memo, int(e), k, std::int64_t(d.tokens)), step = simulated(memo, int(e), k, rounded(d.step_tokens));
    const auto add = [&](const char* name, double value, double chance) { s[name].value.push_back(value), s[name].chance.push_back(chance); };
    dead.push_back(d.all.dead);
    add("cv", d.all.cv, chance::load_cv(e, d.k, d.tokens));
    add("maxvio", d.all.maxvio, whole[0]);
    add("maxvio_batch", d.maxvio_batch, step[0]);
    add("max_min", d.all.max_over_min, whole[1]);
    add("entropy", d.all.entropy_norm, chance::load_entropy_norm(e, d.k, d.tokens));
    add("effective", d.all.effective, chance::load_effective(e, d.k, d.tokens));
    add("gini", d.all.gini, chance::load_gini(e, d.k, d.tokens));
    add("dead", d.all.dead_fraction, chance::load_dead(e, d.k, d.tokens));
  }
  const auto take = [&](const char* name, const Note& n) { return column(n, s[name].value, s[name].chance); };
  r.tables.push_back({"load", "Load balance, layer by layer",
      "0 is perfectly even in CV, MaxVio and Gini; 1 in entropy, effective experts and max/min. Random routing is not 0 either: each column's chance value "
      "is what tokens that draw their experts by lot would give on a trace of this size. The busiest expert sets the pace of its layer.",
      Chart::none,
      {column({"layer", "", "absolute layer number", ""}, shape_.number),
       take("cv", {"CV", "", "standard deviation of the experts' loads over their mean", "load_cv"}),
       take("maxvio", {"MaxVio", "x mean", "how far the busiest expert lies above the mean load, over the whole trace", "load_maxvio_global"}),
       take("maxvio_batch", {"MaxVio per step", "x mean", "the same for every step alone, averaged: what a batch really waits for", "load_maxvio_batch"}),
       take("max_min", {"max/min", "x", "busiest over least busy expert; ∞ where an expert is dead", "load_max_over_min", 2}),
       take("entropy", {"entropy", "", "entropy of the load over its largest possible value", "load_entropy_norm"}),
       take("effective", {"effective experts", "share", "exp(entropy) over E: the share of experts that an even layer of this entropy would use", "load_effective_experts"}),
       take("gini", {"Gini", "", "0 = all experts equal, towards 1 = one takes everything", "load_gini"}),
       column({"dead", "experts", "experts without a single token", ""}, dead),
       take("dead", {"dead share", "share", "dead experts over E", "load_dead_fraction"})},
      section::balance, false, {}});
}

void Load::shares(Report& r) const {
  std::vector<std::int64_t> layer, expert, count;
  std::vector<double> share, fair, mean;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const LoadFigures f = load_figures(layer_[l].counts);
    for (std::size_t e = 0; e < layer_[l].counts.size(); ++e) {
      layer.push_back(shape_.number[l]), expert.push_back(std::int64_t(e)), count.push_back(layer_[l].counts[e]);
      share.push_back(double(count.back()) / double(f.assignments));
      fair.push_back(1.0 / f.experts), mean.push_back(double(f.assignments) / f.experts);
    }
  }
  const Column row = column({"layer", "", "absolute layer number", ""}, layer), col = column({"expert", "", "expert id", ""}, expert);
  r.tables.push_back({"load_map", "Who takes how much", "Every cell is one expert's share of its layer's assignments; an even layer is one colour at 1/E.", Chart::heatmap,
                      {row, col, column({"share", "share", "assignments of the expert over all of the layer", "load_fraction", 4}, share, fair)}, section::balance, true, {}});
  r.tables.push_back({"load_counts", "Assignments per expert", "Before capacity, without padding. Random routing gives every expert of a layer T·K/E of them.", Chart::none,
                      {row, col, column({"assignments", "tokens", "times the expert was chosen", "load_counts"}, count, mean)}, section::balance, true, {}});
}

void Load::histogram(Report& r) const {
  Table t{"load_histogram", "Load of each expert", "Bars of equal height mean balance: 1/E each. Random routing differs from that by a CV of " , Chart::bars, {}, section::balance, false, {}};
  std::vector<std::int64_t> expert;
  for (int e = 0; e < shape_.max_experts(); ++e) expert.push_back(e);
  t.columns.push_back(column({"expert", "", "expert id", ""}, expert));
  double null_cv = 0;
  for (const Index l : shown_layers(shape_.layers(), 4)) {
    const Done d = done(std::size_t(l));
    std::vector<double> share(expert.size(), no_value), fair(expert.size(), no_value);
    for (std::size_t e = 0; e < layer_[std::size_t(l)].counts.size(); ++e)
      share[e] = double(layer_[std::size_t(l)].counts[e]) / double(d.all.assignments), fair[e] = 1.0 / d.all.experts;
    null_cv = chance::load_cv(d.all.experts, d.k, d.tokens);
    const std::string name = "layer " + std::to_string(shape_.number[std::size_t(l)]);
    t.columns.push_back({name, "share", "share of the assignments of " + name, std::move(share), "load_fraction", std::move(fair), 4});
  }
  t.reading += figure(null_cv, 3) + ".";
  if (shape_.layers() > 4) t.reading += " Of many layers, four are drawn; the table of assignments has all.";
  r.tables.push_back(std::move(t));
}

void Load::findings(Report& r) const {
  std::size_t worst = 0;
  int dead = 0, experts = 0;
  std::string where;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const LoadFigures f = done(l).all;
    if (f.cv > done(worst).all.cv) worst = l;
    dead += f.dead, experts += f.experts;
    if (f.dead) where += (where.empty() ? "" : ", ") + std::to_string(shape_.number[l]);
  }
  const Done d = done(worst);
  const double null_cv = chance::load_cv(d.all.experts, d.k, d.tokens);
  const char* verdict = d.all.cv <= 2 * null_cv ? "Routing is as even as chance: the most uneven layer" : d.all.cv < 0.25 ? "Routing is well balanced: the most uneven layer" : d.all.cv < 0.75 ? "Routing is moderately uneven: the worst layer" : "Routing is badly unbalanced: the worst layer";
  r.findings.push_back(std::string(verdict) + ", " + std::to_string(shape_.number[worst]) + ", has a load CV of " + figure(d.all.cv, 3) + " (random routing: " + figure(null_cv, 3) +
                       "), its busiest expert carries " + figure(d.all.max_over_mean) + "x the mean" + (d.all.dead ? ", and " + std::to_string(d.all.dead) + " of its experts nothing." : " and " + figure(d.all.max_over_min, 1) + "x the least busy one."));
  r.findings.push_back(dead ? std::to_string(dead) + " of " + std::to_string(experts) + " experts are dead: no token chose them (layer " + where + ")."
                            : "No expert is dead: each of the " + std::to_string(experts) + " took tokens.");
}

void Load::report(Report& r) const {
  if (layer_.empty()) return;
  bool any = false;
  for (const State& s : layer_) any |= load_figures(s.counts).assignments > 0;
  if (!any) return r.warnings.push_back("the trace holds no assignments: there is no load to judge");
  summary(r), histogram(r), shares(r), findings(r);
}

}  // namespace

std::unique_ptr<Metric> make_load_metric(Spec& spec, const TraceSource& trace, const AnalyzeOptions&) { return std::make_unique<Load>(spec, trace); }

}  // namespace moe
