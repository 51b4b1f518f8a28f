// What load.h counts, as tables and findings.
#include <cmath>
#include <numeric>

#include "analysis/metric/finding.h"
#include "analysis/metric/load.h"
#include "lib/core/text.h"

namespace moe {

// A layer without choices has none that could be counted.
Cells LoadMetric::dead_counts() const {
  std::vector<std::int64_t> whole;
  std::vector<double> where_known;
  bool all = true;
  for (const State& s : layer_) {
    const LoadFigures f = load_figures(s.counts);
    all &= f.assignments > 0;
    whole.push_back(f.dead);
    where_known.push_back(f.assignments > 0 ? f.dead : no_value);
  }
  return all ? moe::Cells(whole) : moe::Cells(where_known);
}

void LoadMetric::summary(Report& r, const Values& values) const {
  TableBuilder t("load", "Load balance, layer by layer", section::balance);
  t.reading(
       concat("0 is perfectly even in CV, MaxVio and Gini; 1 in entropy, effective experts and "
              "max/min. "
              "Random routing is not 0 either: ",
              tokens_known()
                  ? "each column's chance value is what tokens that choose their experts at "
                    "random would give on a trace of this size."
                  : "how far from it depends on the number of tokens, which is not known here.",
              " The busiest expert sets the pace of its layer."))
      .chart(Chart::lines);
  t.layers(shape_.number);
  t.column("CV")
      .meaning("standard deviation of the experts' loads over their mean")
      .of("load_cv", values)
      .judged_by(evidence(cv_, chance::reach_load_cv));
  t.column("MaxVio")
      .unit("x mean")
      .meaning("how far the busiest expert lies above the mean load, over the whole trace")
      .of("load_maxvio_global", values)
      .judged_by(evidence(maxvio_, chance::reach_maxvio));
  t.column("MaxVio per step")
      .unit("x mean")
      .meaning("the same for every step alone, averaged: what a batch really waits for")
      .of("load_maxvio_batch", values);
  t.column("max/min")
      .unit("x")
      .meaning("busiest over least busy expert; ∞ where an expert is dead")
      .of("load_max_over_min", values)
      .digits(2);
  t.column("entropy")
      .meaning("entropy of the load over its largest possible value")
      .of("load_entropy_norm", values);
  t.column("effective experts")
      .unit("share")
      .meaning(
          "exp(entropy) over E: the share of experts that an even layer of this entropy would "
          "use")
      .of("load_effective_experts", values);
  t.column("Gini")
      .meaning("0 = all experts equal, towards 1 = one takes everything")
      .of("load_gini", values);
  t.column("dead")
      .unit("experts")
      .meaning("experts without a single token; of few tokens random routing leaves some too")
      .values(dead_counts())
      .digits(0);
  t.column("dead share")
      .unit("share")
      .meaning("dead experts over E")
      .of("load_dead_fraction", values)
      .judged_by(evidence(dead_, chance::reach_dead_fraction));
  t.into(r);
}

// The other definitions of the same idea, for whoever needs the very one of a paper or a tool.
void LoadMetric::more(Report& r, const Values& values) const {
  TableBuilder t("load_more", "The same loads by other definitions", section::balance);
  t.reading(
       "What papers and tools call balance, each under the id of its definition "
       "(docs/metrics.md), beside what random routing gives on a trace of this size.")
      .detail();
  t.layers(shape_.number);
  t.column("sample CV").meaning("with divisor E-1").of("load_cv_sample", values);
  t.column("CV per step")
      .meaning("mean over steps of the CV of the step's counts")
      .of("load_cv_batch", values);
  t.column("max/mean")
      .unit("x")
      .meaning("busiest expert over the mean load")
      .of("load_max_over_mean", values);
  t.column("AvgVio")
      .unit("x mean")
      .meaning("mean distance of an expert's load from the mean")
      .of("load_avgvio", values);
  t.column("MinVio")
      .unit("x mean")
      .meaning("how far the least busy expert lies below the mean")
      .of("load_minvio", values);
  t.column("entropy").unit("nats").meaning("of the load").of("load_entropy", values);
  t.column("Jain").meaning("Jain's index: 1 = even, 1/E = one expert").of("load_jain", values);
  list_options(t, values);
  if (has_weights_) {
    t.column("importance CV")
        .meaning("of the experts' sums of combine weights")
        .of("importance_cv", values);
  }
  t.into(r);
}

void LoadMetric::list_options(TableBuilder& t, const Values& values) const {
  for (const int n : topn_) {
    t.column(concat("share of top ", n))
        .unit("share")
        .meaning("assignments of the busiest experts")
        .of("load_topn_coverage")
        .rows(values.at(concat("load_topn_coverage ", n)));
    t.column(concat("concentration of top ", n))
        .unit("x")
        .meaning("that share over the share of experts")
        .of("load_topn_concentration")
        .rows(values.at(concat("load_topn_concentration ", n)));
  }
  for (const int m : tiles_) {
    t.column(concat("padding at tile ", m))
        .unit("share")
        .meaning("rows that are padding where each expert's rows are filled up to whole tiles")
        .of("tile_padding_waste")
        .rows(values.at(concat("tile_padding_waste ", m)));
  }
}

struct LoadMetric::Cells {  // a row for every expert of every layer
  std::vector<std::int64_t> layer, expert, count;
  std::vector<double> mean;  // of the layer's counts
  Values values;
};

LoadMetric::Cells LoadMetric::cells() const {
  Cells out;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const LoadFigures f = load_figures(layer_[l].counts);
    const auto& importance = layer_[l].importance;
    const double all = std::accumulate(importance.begin(), importance.end(), 0.0);
    for (std::size_t e = 0; e < layer_[l].counts.size(); ++e) {
      const std::int64_t n = layer_[l].counts[e];
      const double share = double(n) / double(f.assignments);
      out.layer.push_back(shape_.number[l]);
      out.expert.push_back(std::int64_t(e));
      out.count.push_back(n);
      out.mean.push_back(double(f.assignments) / f.experts);
      out.values["load_fraction"].add(share, 1.0 / f.experts);
      out.values["load_utilization"].add(share * f.experts, 1);
      out.values["importance_sum"].add(importance[e], all / f.experts);
    }
  }
  return out;
}

void LoadMetric::shares(Report& r) const {
  const auto [layer, expert, count, mean, values] = cells();
  TableBuilder map("load_map", "Who takes how much", section::balance);
  map.reading(
         "Every cell is one expert's share of its layer's assignments, coloured by its ratio to an "
         "even share of 1/E: blue less, red more, white about as much.")
      .chart(Chart::heatmap)
      .detail();
  map.layers(layer).key("expert", "expert id", expert);
  map.column("share")
      .unit("share")
      .meaning("assignments of the expert over all of the layer")
      .of("load_fraction", values)
      .digits(4)
      .around_chance();
  map.into(r);
  TableBuilder t("load_counts", "Assignments per expert", section::balance);
  t.reading(concat(counted_ ? "As the engine counted them." : "Before capacity, without padding.",
                   " Random routing gives every expert of a layer T·K/E of them."))
      .detail();
  t.layers(layer).key("expert", "expert id", expert);
  t.column("assignments")
      .unit("tokens")
      .meaning("times the expert was chosen")
      .of("load_counts")
      .values(count)
      .chance(mean);
  t.column("utilization")
      .unit("x mean")
      .meaning("over the mean of the layer")
      .of("load_utilization", values);
  if (has_weights_)
    t.column("importance").meaning("sum of its combine weights").of("importance_sum", values);
  t.into(r);
}

void LoadMetric::histogram(Report& r) const {
  TableBuilder t("load_histogram", "Load of each expert", section::balance);
  std::vector<std::int64_t> expert(std::size_t(shape_.max_experts()));
  std::iota(expert.begin(), expert.end(), 0);
  t.key("expert", "expert id", expert);
  std::string by_chance;
  for (const Index l : shown_layers(shape_.layers(), 4)) {
    const Done d = done(std::size_t(l));
    std::vector<double> share(expert.size(), no_value);
    std::vector<double> fair(expert.size(), no_value);
    for (std::size_t e = 0; e < layer_[l].counts.size(); ++e) {
      share[e] = double(layer_[l].counts[e]) / double(d.all.assignments);
      fair[e] = 1.0 / d.all.experts;
    }
    by_chance = chance_cv(d);
    const std::string name = concat("layer ", shape_.number[l]);
    t.column(name)
        .unit("share")
        .meaning(concat("share of the assignments of ", name))
        .of("load_fraction")
        .digits(4)
        .values(share)
        .chance(fair);
  }
  t.reading(concat("Equal bars, or one colour where they are too many to stand, mean balance: 1/E "
                   "each. Random routing differs from that by a CV of ",
                   by_chance, ".",
                   shape_.layers() > 4
                       ? " Of many layers, four are drawn; the table of assignments has all."
                       : ""))
      .chart(Chart::bars);
  t.into(r);
}

// "0.055"; where the tokens are not known the most that they can give, of one choice each.
std::string LoadMetric::chance_cv(const Done& d) const {
  if (!std::isnan(d.tokens))
    return figure(chance::load_cv(d.all.experts, d.k, d.tokens), 3);
  return concat("at most ",
                figure(chance::load_cv(d.all.experts, 1, double(d.all.assignments)), 3));
}

// The chance value is the expected CV by its closed form, which needs no draws; the column's is the
// median of draws, a little off it.
void LoadMetric::most_uneven(Report& r) const {
  const QuotedTable t(r, "load");
  const QuotedTable more(r, "load_more");
  const auto judged = verdict(cv_, t.column("CV"));
  const std::size_t worst = judged->row;
  const QuotedCell cv = t.cell("CV", worst);
  const QuotedCell dead = t.cell("dead", worst);
  const Done d = done(worst);
  const double by_chance = chance::load_cv(d.all.experts, d.k, d.tokens);
  if (judged->light == Light::grey) {
    return tell(
        r, too_few(judged->tokens, "whether routing is balanced", judged->needed, "", judged->unit),
        " The most uneven layer, ", t.cell("layer", worst), ", has a load CV of ", cv.figure(3),
        " (random routing of this size: ", chance_cv(d), ").");
  }
  const char* verdict =
      cv.number() <= chance_slack * by_chance
          ? "Routing is as even as chance: the most uneven layer"
      : judged->light == Light::green  ? "Routing is well balanced: the most uneven layer"
      : judged->light == Light::yellow ? "Routing is moderately uneven: the worst layer"
                                       : "Routing is badly unbalanced: the worst layer";
  tell(r, verdict, ", ", t.cell("layer", worst), ", has a load CV of ", cv.figure(3),
       " (random routing: ", chance_cv(d), "), its busiest expert carries ",
       more.cell("max/mean", worst).figure(), "x the mean",
       dead.number() > 0
           ? told(", and ", dead, " of its experts nothing.")
           : told(" and ", t.cell("max/min", worst).figure(1), "x the least busy one."));
}

// Of all experts, whose number is the trace's shape and stands in the facts. Those of layers where
// random routing leaves experts without a token as well are not called dead.
void LoadMetric::dead_experts(Report& r) const {
  const QuotedTable t(r, "load");
  const Column& share = t.column("dead share");
  Finding where, unknown;
  std::int64_t dead = 0, idle = 0, experts = 0;
  double needed = 0;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    if (load_figures(layer_[l].counts).assignments == 0)
      continue;
    experts += shape_.experts[l];
    const int none = load_figures(layer_[l].counts).dead;
    if (none == 0)
      continue;
    const bool grey = light_of(dead_, share, l) == Light::grey;
    Finding& list = grey ? unknown : where;
    extend(list, list.text.empty() ? "" : ", ", t.cell("layer", l));
    (grey ? idle : dead) += none;
    if (grey)
      needed = std::max(needed, share.evidence.needed[l]);
  }
  if (dead > 0) {
    tell(r, derived(concat(dead), {t.basis("dead"), t.basis("dead share")}), " of ", experts,
         " experts are dead: no token chose them (layer ", where, ").");
  }
  if (idle > 0) {
    return tell(r, derived(concat(idle), {t.basis("dead")}), " of ", experts,
                " experts took no token (layer ", unknown,
                "), as some would not under random routing either. ",
                too_few(share.evidence.tokens[0], "whether they are dead", needed, "",
                        share.evidence.unit));
  }
  if (dead == 0) {
    tell(r, derived("No expert is dead", {t.basis("dead"), t.basis("dead share")}),
         ": each of the ", experts, " took tokens.");
  }
}

void LoadMetric::layers_without_choices(Report& r) const {
  std::string names;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    if (load_figures(layer_[l].counts).assignments == 0)
      names += concat(names.empty() ? "" : ", ", shape_.number[l]);
  }
  if (!names.empty()) {
    r.warnings.push_back(
        concat("no token has a choice in layer ", names, ": nothing is said of the balance there"));
  }
}

void LoadMetric::report(Report& r) const {
  if (layer_.empty())
    return;
  bool any = false;
  for (const State& s : layer_)
    any |= load_figures(s.counts).assignments > 0;
  if (!any)
    return r.warnings.push_back("the trace holds no assignments: there is no load to judge");
  const Values values = judged();
  summary(r, values);
  histogram(r);
  more(r, values);
  shares(r);
  layers_without_choices(r);
  most_uneven(r);
  dead_experts(r);
}

}  // namespace moe
