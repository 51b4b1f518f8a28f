// How evenly tokens spread over experts: the whole trace, and step by step where the trace has
// steps.
#include "lib/core/load.h"

#include <cmath>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"

namespace moe {
namespace {

class Load final : public Metric {
 public:
  Load(Spec& spec, const TraceSource& trace)
      : shape_(trace),
        topn_(whole_list_of(spec, "topn", "1,2,4", 1)),
        tiles_(whole_list_of(spec, "tile_sizes", "16,128", 1)),
        has_weights_(trace.fields().weights) {
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
      if (step != s.step) {
        end_step(s);
        s.step = step;
      }
      const std::size_t from = i;
      while (i < w.valid.size() && w.rows.step[std::size_t(w.valid[i])] == step)
        ++i;
      // no padding in between
      const bool dense = c.full && w.valid[i - 1] - w.valid[from] == Index(i - 1 - from);
      if (dense && Index(i - from) * c.width > Index(2 * s.counts.size())) {
        add_counts(c.of(w.valid[from]).data(), Index(i - from) * c.width, s);
      } else {
        for (std::size_t j = from; j < i; ++j) {
          for (const int e : c.of(w.valid[j])) {
            ++s.counts[std::size_t(e)];
            ++s.step_counts[std::size_t(e)];
          }
        }
      }
    }
    s.tokens += std::int64_t(w.valid.size());
    if (rows.weight.empty())
      return;
    for (const Index t : w.valid) {
      double sum = 0;
      for (Index j = 0; j < rows.expert.cols(); ++j) {
        const double weight = rows.weight(t, j);
        // NaN: the reader warns
        if (const int e = rows.expert(t, j); e < 0 || !std::isfinite(weight))
          continue;
        else
          s.importance[std::size_t(e)] += weight;
        sum += weight;
        s.weight_squares += weight * weight;
      }
      s.token_squares += sum * sum;
    }
  }

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct State {
    std::vector<std::int64_t> counts, step_counts;
    std::vector<double> importance;
    // sums of squares of weights, and of the tokens' sums of weights
    double weight_squares = 0, token_squares = 0;
    std::int64_t tokens = 0, steps = 0;
    std::uint32_t step = 0;
    double step_cv = 0, step_maxvio = 0;
  };
  struct Done {  // of one layer
    LoadFigures all;
    double cv_batch, maxvio_batch, k, tokens, step_tokens;
    std::int64_t steps;
  };

  // Neighbouring ids are often equal or near, and adding twice to one place waits for the first:
  // two tables take turns.
  static void add_counts(const int* id, Index n, State& s) {
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
  static void end_step(State& s) {
    const LoadFigures f = load_figures(s.step_counts);
    if (f.assignments == 0)
      return;
    ++s.steps;
    s.step_cv += f.cv;
    s.step_maxvio += f.maxvio;
    std::fill(s.step_counts.begin(), s.step_counts.end(), 0);
  }
  Done done(std::size_t l) const {
    State s = layer_[l];
    end_step(s);
    const LoadFigures f = load_figures(s.counts);
    const double steps = double(s.steps);
    const double tokens = double(s.tokens);
    return {f,
            s.step_cv / steps,
            s.step_maxvio / steps,
            double(f.assignments) / tokens,
            tokens,
            tokens / steps,
            s.steps};
  }
  // What the table of figures() gives for random routing, in its order.
  const std::vector<chance::Value>& simulated(Memo& memo, int experts, int k,
                                              std::int64_t tokens) const {
    return memo.get({double(experts), double(k), double(tokens)}, [&] {
      const auto of = [&](std::span<const std::int64_t> c) {
        return figures(load_figures(c), c);
      };
      return chance::simulate_load(experts, k, tokens,
                                   of(std::vector<std::int64_t>(std::size_t(experts), 1)).size(),
                                   of, max_min);
    });
  }
  // The part of `figures` that is of one layer's counts; then coverage and concentration of each
  // topn, waste of each tile size.
  enum Figure {
    cv,
    cv_sample,
    max_mean,
    max_min,
    maxvio,
    avgvio,
    minvio,
    entropy,
    entropy_norm,
    effective,
    jain,
    gini,
    dead_share,
    figure_count
  };
  std::vector<double> figures(const LoadFigures& f, std::span<const std::int64_t> counts) const {
    std::vector<double> out{f.cv,     f.cv_sample, f.max_over_mean, f.max_over_min, f.maxvio,
                            f.avgvio, f.minvio,    f.entropy,       f.entropy_norm, f.effective,
                            f.jain,   f.gini,      f.dead_fraction};
    const double experts = double(counts.size());
    for (const int n : topn_) {
      out.push_back(load_topn_coverage(counts, n));
      out.push_back(out.back() / (std::min(double(n), experts) / experts));
    }
    for (const int m : tiles_)
      out.push_back(tile_padding_waste(counts, m));
    return out;
  }
  static double importance_cv(const State& s) {
    const double experts = double(s.importance.size());
    const double mean = std::accumulate(s.importance.begin(), s.importance.end(), 0.0) / experts;
    double square = 0;
    for (const double i : s.importance)
      square += (i - mean) * (i - mean) / experts;
    return mean != 0 ? std::sqrt(square) / mean : no_value;
  }
  // a token's weights fall on distinct experts by lot: sqrt((E sum w^2 - sum (sum of a token's
  // w)^2) / W^2)
  static double importance_chance(const State& s) {
    const double experts = double(s.importance.size());
    const double all = std::accumulate(s.importance.begin(), s.importance.end(), 0.0);
    return all != 0 ? std::sqrt(std::max(0.0, experts * s.weight_squares - s.token_squares)) /
                          std::abs(all) * chance::mean_root(experts - 1)
                    : no_value;
  }
  struct Judged {  // every figure of every layer beside what random routing gives
    std::vector<std::vector<double>> value;  // (figures, L), in the order of figures()
    std::vector<Nulls> null;
    std::vector<double> step_cv, step_maxvio, importance;  // (L)
    Nulls step_cv_null, step_maxvio_null, importance_null;
    std::vector<std::int64_t> dead;
  };
  Judged judged() const;
  void summary(Report&, const Judged&) const;
  void more(Report&, const Judged&) const;
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
    const double n = double(d.all.assignments);
    const double experts = double(s.counts.size());
    for (auto* rows : {&counts, &fraction, &use, &coverage, &focus, &waste})
      rows->push_back({});
    for (const std::int64_t c : s.counts) {
      counts.back().push_back(double(c));
      fraction.back().push_back(double(c) / n);
      use.back().push_back(double(c) * experts / n);
    }
    const std::vector<double> f = figures(d.all, s.counts);
    std::size_t at = figure_count;
    for (std::size_t i = 0; i < topn_.size(); ++i) {
      coverage.back().push_back(f[at++]);
      focus.back().push_back(f[at++]);
    }
    for (std::size_t i = 0; i < tiles_.size(); ++i)
      waste.back().push_back(f[at++]);
    importance.push_back(s.importance);
    constexpr const char* ids[figure_count] = {"load_cv",
                                               "load_cv_sample",
                                               "load_max_over_mean",
                                               "load_max_over_min",
                                               "load_maxvio_global",
                                               "load_avgvio",
                                               "load_minvio",
                                               "load_entropy",
                                               "load_entropy_norm",
                                               "load_effective_experts",
                                               "load_jain",
                                               "load_gini",
                                               "load_dead_fraction"};
    for (std::size_t i = 0; i < figure_count; ++i)
      one[ids[i]].push_back(f[i]);
    one["load_cv_batch"].push_back(d.cv_batch);
    one["load_maxvio_batch"].push_back(d.maxvio_batch);
    one["importance_cv"].push_back(importance_cv(s));
  }
  std::vector<MetricValue> out{per_layer("load_counts", counts),
                               per_layer("load_fraction", fraction),
                               per_layer("load_utilization", use),
                               per_layer("load_topn_coverage", coverage),
                               per_layer("load_topn_concentration", focus),
                               per_layer("tile_padding_waste", waste)};
  if (has_weights_)
    out.push_back(per_layer("importance_sum", importance));
  for (const auto& [id, values] : one) {
    if (has_weights_ || id != "importance_cv")
      out.push_back(per_layer(id.c_str(), values));
  }
  return out;
}

Load::Judged Load::judged() const {
  Judged j;
  const std::size_t width = figure_count + 2 * topn_.size() + tiles_.size();
  j.value.resize(width);
  j.null.resize(width);
  Memo memo;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const Done d = done(l);
    const int e = shape_.experts[l];
    const int k = whole_choices(d.k, e);
    const auto here = figures(d.all, layer_[l].counts);
    const auto& whole = simulated(memo, e, k, std::int64_t(d.tokens));
    const auto& step = simulated(memo, e, k, rounded(d.step_tokens));
    for (std::size_t i = 0; i < width; ++i) {
      j.value[i].push_back(here[i]);
      j.null[i].add(whole[i]);
    }
    const double none = chance::load_dead(e, d.k, d.tokens);
    j.null[dead_share].value.back() = none;
    j.null[dead_share].spread.back() = std::sqrt(none * (1 - none) / e);
    const auto of_step = [&](Figure f) {
      return chance::Value{step[f].mean,
                           step[f].spread / std::sqrt(double(std::max<std::int64_t>(1, d.steps)))};
    };
    j.step_cv.push_back(d.cv_batch);
    j.step_cv_null.add(of_step(cv));
    j.step_maxvio.push_back(d.maxvio_batch);
    j.step_maxvio_null.add(of_step(maxvio));
    const double lot = importance_chance(layer_[l]);
    j.importance.push_back(importance_cv(layer_[l]));
    j.importance_null.add({lot, whole[cv].spread / whole[cv].mean * lot});
    j.dead.push_back(d.all.dead);
  }
  return j;
}

void Load::summary(Report& r, const Judged& j) const {
  const auto take = [&](Figure which, const Note& n) {
    return column(n, j.value[which], j.null[which]);
  };
  r.tables.push_back(
      {"load",
       "Load balance, layer by layer",
       "0 is perfectly even in CV, MaxVio and Gini; 1 in entropy, effective experts and max/min. "
       "Random routing is not 0 either: each column's chance value "
       "is what tokens that draw their experts by lot would give on a trace of this size. The "
       "busiest expert sets the pace of its layer.",
       Chart::none,
       {column({"layer", "", "absolute layer number", ""}, shape_.number),
        take(cv, {"CV", "", "standard deviation of the experts' loads over their mean", "load_cv"}),
        take(maxvio, {"MaxVio", "x mean",
                      "how far the busiest expert lies above the mean load, over the whole trace",
                      "load_maxvio_global"}),
        column({"MaxVio per step", "x mean",
                "the same for every step alone, averaged: what a batch really waits for",
                "load_maxvio_batch"},
               j.step_maxvio, j.step_maxvio_null),
        take(max_min, {"max/min", "x", "busiest over least busy expert; ∞ where an expert is dead",
                       "load_max_over_min", 2}),
        take(entropy_norm, {"entropy", "", "entropy of the load over its largest possible value",
                            "load_entropy_norm"}),
        take(effective, {"effective experts", "share",
                         "exp(entropy) over E: the share of experts that an even layer of this "
                         "entropy would use",
                         "load_effective_experts"}),
        take(gini,
             {"Gini", "", "0 = all experts equal, towards 1 = one takes everything", "load_gini"}),
        column({"dead", "experts", "experts without a single token", ""}, j.dead),
        take(dead_share, {"dead share", "share", "dead experts over E", "load_dead_fraction"})},
       section::balance,
       false,
       {}});
}

// The other definitions of the same idea, for whoever needs the very one of a paper or a tool.
void Load::more(Report& r, const Judged& j) const {
  Table t{"load_more",
          "The same loads by other definitions",
          "What papers and tools call balance, each under the id of its definition "
          "(docs/metrics.md), beside what random routing gives on a trace of this size.",
          Chart::none,
          {column({"layer", "", "absolute layer number", ""}, shape_.number)},
          section::balance,
          true,
          {}};
  const auto add = [&](const Note& n, const std::vector<double>& v, const Nulls& by,
                       const std::string& suffix = "") {
    t.columns.push_back(column(n, v, by));
    t.columns.back().name += suffix;
  };
  add({"sample CV", "", "with divisor E-1", "load_cv_sample"}, j.value[cv_sample],
      j.null[cv_sample]);
  add({"CV per step", "", "mean over steps of the CV of the step's counts", "load_cv_batch"},
      j.step_cv, j.step_cv_null);
  add({"max/mean", "x", "busiest expert over the mean load", "load_max_over_mean"},
      j.value[max_mean], j.null[max_mean]);
  add({"AvgVio", "x mean", "mean distance of an expert's load from the mean", "load_avgvio"},
      j.value[avgvio], j.null[avgvio]);
  add({"MinVio", "x mean", "how far the least busy expert lies below the mean", "load_minvio"},
      j.value[minvio], j.null[minvio]);
  add({"entropy", "nats", "of the load", "load_entropy"}, j.value[entropy], j.null[entropy]);
  add({"Jain", "", "Jain's index: 1 = even, 1/E = one expert", "load_jain"}, j.value[jain],
      j.null[jain]);
  std::size_t at = figure_count;
  for (const int n : topn_) {
    add({"share of top ", "share", "assignments of the busiest experts", "load_topn_coverage"},
        j.value[at], j.null[at], std::to_string(n));
    ++at;
    add({"concentration of top ", "x", "that share over the share of experts",
         "load_topn_concentration"},
        j.value[at], j.null[at], std::to_string(n));
    ++at;
  }
  for (const int m : tiles_) {
    add({"padding at tile ", "share",
         "rows that are padding where each expert's rows are filled up to whole tiles",
         "tile_padding_waste"},
        j.value[at], j.null[at], std::to_string(m));
    ++at;
  }
  if (has_weights_) {
    add({"importance CV", "", "of the experts' sums of combine weights", "importance_cv"},
        j.importance, j.importance_null);
  }
  r.tables.push_back(std::move(t));
}

void Load::shares(Report& r) const {
  std::vector<std::int64_t> layer, expert, count;
  std::vector<double> share, fair, mean, use, weight, fair_weight;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const LoadFigures f = load_figures(layer_[l].counts);
    const auto& importance = layer_[l].importance;
    const double all = std::accumulate(importance.begin(), importance.end(), 0.0);
    for (std::size_t e = 0; e < layer_[l].counts.size(); ++e) {
      layer.push_back(shape_.number[l]);
      expert.push_back(std::int64_t(e));
      count.push_back(layer_[l].counts[e]);
      share.push_back(double(count.back()) / double(f.assignments));
      fair.push_back(1.0 / f.experts);
      mean.push_back(double(f.assignments) / f.experts);
      use.push_back(share.back() * f.experts);
      weight.push_back(importance[e]);
      fair_weight.push_back(all / f.experts);
    }
  }
  const Column row = column({"layer", "", "absolute layer number", ""}, layer);
  const Column col = column({"expert", "", "expert id", ""}, expert);
  r.tables.push_back({"load_map",
                      "Who takes how much",
                      "Every cell is one expert's share of its layer's assignments; an even layer "
                      "is one colour at 1/E.",
                      Chart::heatmap,
                      {row, col,
                       column({"share", "share", "assignments of the expert over all of the layer",
                               "load_fraction", 4},
                              share, fair)},
                      section::balance,
                      true,
                      {}});
  r.tables.push_back(
      {"load_counts",
       "Assignments per expert",
       "Before capacity, without padding. Random routing gives every expert of a layer T·K/E of "
       "them.",
       Chart::none,
       {row, col,
        column({"assignments", "tokens", "times the expert was chosen", "load_counts"}, count,
               mean),
        column({"utilization", "x mean", "over the mean of the layer", "load_utilization"}, use,
               std::vector<double>(use.size(), 1))},
       section::balance,
       true,
       {}});
  if (has_weights_) {
    r.tables.back().columns.push_back(column(
        {"importance", "", "sum of its combine weights", "importance_sum"}, weight, fair_weight));
  }
}

void Load::histogram(Report& r) const {
  Table t{"load_histogram",
          "Load of each expert",
          "Equal bars, or one colour where they are too many to stand, mean balance: 1/E each. "
          "Random routing differs from that by a CV of ",
          Chart::bars,
          {},
          section::balance,
          false,
          {}};
  std::vector<std::int64_t> expert;
  for (int e = 0; e < shape_.max_experts(); ++e)
    expert.push_back(e);
  t.columns.push_back(column({"expert", "", "expert id", ""}, expert));
  double null_cv = 0;
  for (const Index l : shown_layers(shape_.layers(), 4)) {
    const Done d = done(std::size_t(l));
    std::vector<double> share(expert.size(), no_value);
    std::vector<double> fair(expert.size(), no_value);
    for (std::size_t e = 0; e < layer_[std::size_t(l)].counts.size(); ++e) {
      share[e] = double(layer_[std::size_t(l)].counts[e]) / double(d.all.assignments);
      fair[e] = 1.0 / d.all.experts;
    }
    null_cv = chance::load_cv(d.all.experts, d.k, d.tokens);
    const std::string name = "layer " + std::to_string(shape_.number[std::size_t(l)]);
    t.columns.push_back({name, "share", "share of the assignments of " + name, std::move(share),
                         "load_fraction", std::move(fair), 4});
  }
  t.reading += figure(null_cv, 3) + ".";
  if (shape_.layers() > 4)
    t.reading += " Of many layers, four are drawn; the table of assignments has all.";
  r.tables.push_back(std::move(t));
}

void Load::findings(Report& r) const {
  std::size_t worst = 0;
  int dead = 0;
  int experts = 0;
  std::string where;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const LoadFigures f = done(l).all;
    if (f.cv > done(worst).all.cv)
      worst = l;
    dead += f.dead;
    experts += f.experts;
    if (f.dead)
      where += (where.empty() ? "" : ", ") + std::to_string(shape_.number[l]);
  }
  const Done d = done(worst);
  const double null_cv = chance::load_cv(d.all.experts, d.k, d.tokens);
  const char* verdict = d.all.cv <= 2 * null_cv
                            ? "Routing is as even as chance: the most uneven layer"
                        : d.all.cv < 0.25 ? "Routing is well balanced: the most uneven layer"
                        : d.all.cv < 0.75 ? "Routing is moderately uneven: the worst layer"
                                          : "Routing is badly unbalanced: the worst layer";
  r.findings.push_back(
      std::string(verdict) + ", " + std::to_string(shape_.number[worst]) + ", has a load CV of " +
      figure(d.all.cv, 3) + " (random routing: " + figure(null_cv, 3) +
      "), its busiest expert carries " + figure(d.all.max_over_mean) + "x the mean" +
      (d.all.dead ? ", and " + std::to_string(d.all.dead) + " of its experts nothing."
                  : " and " + figure(d.all.max_over_min, 1) + "x the least busy one."));
  r.findings.push_back(dead ? std::to_string(dead) + " of " + std::to_string(experts) +
                                  " experts are dead: no token chose them (layer " + where + ")."
                            : "No expert is dead: each of the " + std::to_string(experts) +
                                  " took tokens.");
}

void Load::report(Report& r) const {
  if (layer_.empty())
    return;
  bool any = false;
  for (const State& s : layer_)
    any |= load_figures(s.counts).assignments > 0;
  if (!any)
    return r.warnings.push_back("the trace holds no assignments: there is no load to judge");
  const Judged j = judged();
  summary(r, j);
  histogram(r);
  more(r, j);
  shares(r);
  findings(r);
}

}  // namespace

std::unique_ptr<Metric> make_load_metric(Spec& spec, const TraceSource& trace,
                                         const AnalyzeOptions&) {
  return std::make_unique<Load>(spec, trace);
}

}  // namespace moe
