// What domains.h counts, as tables and findings.
#include <algorithm>
#include <cmath>

#include "analysis/metric/domains.h"
#include "analysis/metric/finding.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Index most_map_cells = 20000;  // of all small maps together
constexpr Index most_maps = 64;

}  // namespace

Values DomainsMetric::layer_values() const {
  Values all;
  Memo& memo = store().memo;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Figures f = figures(l, store());
    const double excess = excess_bits(l);
    const chance::Value norm =
        f.entropy > 0 ? chance::Value{f.null_mi.mean / f.entropy, f.null_mi.spread / f.entropy}
                      : chance::Value{0, 0};
    const auto& lift = memo.get(key_of(shape_.experts[l], choices(l), state_[l].tokens), [&] {
      return chance::simulate_joint(
          state_[l].tokens, shape_.experts[l], choices(l), 1,
          [](const Counts& c) { return std::vector<double>{max_lift(c)}; });
    });
    all["domain_expert_mi_bits"].add(f.mi, f.null_mi);
    all["domain_expert_mi_norm"].add(f.norm, norm);
    all["domain_expert_mi_excess_bits"].add(excess,
                                            {f.null_mi.mean - (f.mi - excess), f.null_mi.spread});
    all["domain_max_lift"].add(f.lift, lift.front());
    all["domain_cluster_ami"].add(f.ami, 0);
  }
  return all;
}

void DomainsMetric::summary(Report& r) const {
  const Values values = layer_values();
  TableBuilder t("domains", "How much the domain tells about the expert", section::specialisation);
  t.reading(
       "Mutual information is what knowing a token's domain tells about its expert: 0 bits if "
       "experts ignore the domain, at most the "
       "domains' own entropy. A finite sample of random routing gives a little more than 0: the "
       "chance value, already taken off in the excess.")
      .chart(Chart::lines);
  t.layers(shape_.number);
  t.column("information")
      .unit("bits")
      .meaning("mutual information of domain and expert")
      .of("domain_expert_mi_bits", values)
      .digits(4);
  t.column("above chance")
      .unit("bits")
      .meaning("information less (D-1)(E-K)/(2 N ln 2); may be below 0")
      .of("domain_expert_mi_excess_bits", values)
      .digits(4);
  t.column("of the domain")
      .unit("share")
      .meaning("information over the entropy of the domains")
      .of("domain_expert_mi_norm", values)
      .digits(4);
  t.column("largest lift")
      .unit("x")
      .meaning("the strongest preference: share of an expert in one domain over its share in all")
      .of("domain_max_lift", values)
      .digits(2);
  t.column("same partition")
      .meaning(
          "adjusted mutual information of first choice and domain: 1 = experts and domains cut the "
          "text alike")
      .of("domain_cluster_ami", values)
      .digits(4);
  t.into(r);
}

void DomainsMetric::finding(Report& r) const {
  const QuotedTable t(r, "domains");
  const std::size_t best = largest(t.numbers("above chance"));
  const QuotedCell bits = t.cell("information", best);
  const Finding by_chance = t.chance("information", best).figure(4);
  const Standing s = tells_apart(best, store());
  if (s.shown == Shown::too_few) {
    const auto& tokens = state_[best].tokens;
    return tell(r,
                too_few(std::accumulate(tokens.begin(), tokens.end(), 0.0),
                        "whether experts tell the domains apart", s.needed),
                " They know ", bits.figure(4), " bits of the domain at most, random routing gives ",
                by_chance, ".");
  }
  if (s.shown == Shown::more) {
    return tell(r, "Experts tell the domains apart most in layer ", t.cell("layer", best), ": ",
                bits.figure(3), " bits (", t.cell("of the domain", best).percent(),
                " of what there is to know; random routing: ", by_chance, " bits).");
  }
  tell(r, Priority::chance, "Experts do not tell the domains apart: ", bits.figure(4),
       " bits at most, random routing gives ", by_chance, ".");
}

// Of the expert in a row of the domains' own experts.
void DomainsMetric::favourite(Report& r, std::size_t row) {
  const QuotedTable t(r, "domain_experts");
  tell(r, "Who took ", t.cell("domain", row), ": expert ", t.cell("expert", row), " of layer ",
       t.cell("layer", row), " (", t.cell("hit rate", row).percent(), " of its tokens, ",
       t.cell("lift", row).figure(1), "x its usual share).");
}

static void add_preference(TableBuilder& t, const Values::Rows& lift, const Values::Rows& rate) {
  t.column("lift")
      .unit("x")
      .meaning("share of the domain's assignments over the share of all assignments")
      .digits(2)
      .rows(lift);
  t.column("hit rate")
      .unit("share")
      .meaning("tokens of the domain that chose the expert")
      .of("domain_hit_rate")
      .rows(rate);
}

void DomainsMetric::favourites(Report& r) const {
  std::vector<std::string> domain;
  std::vector<std::int64_t> layer, expert;
  Values::Rows lift, rate;
  std::vector<std::size_t> told_rows;
  const std::vector<ByChance> by_lot = favourites_by_lot();
  for (std::size_t d = 0; d < names_.size(); ++d) {
    const Favourites best = favourites_of(d, state_, shape_.top_k);
    if (!best.empty() && tells_apart(best.front().layer, store()).shown == Shown::more &&
        standing(best.front().lift, by_lot[d * listed].lift, {}).shown == Shown::more) {
      told_rows.push_back(layer.size());
    }
    for (std::size_t i = 0; i < std::min(listed, best.size()); ++i) {
      domain.push_back(names_[d]);
      layer.push_back(shape_.number[best[i].layer]);
      expert.push_back(best[i].expert);
      lift.add(best[i].lift, by_lot[d * listed + i].lift);
      rate.add(best[i].rate, by_lot[d * listed + i].rate);
    }
  }
  TableBuilder t("domain_experts", "Each domain's own experts", section::specialisation);
  t.reading(
      "For every domain the experts with the largest lift among those that take more than a fair "
      "share of its tokens. Lift 1 is no preference; the chance value is what the first, second, "
      "... of as many experts would show under random routing.");
  t.key("domain", "label of the text", domain).layers(layer).key("expert", "expert id", expert);
  add_preference(t, lift, rate);
  t.into(r);
  finding(r);
  for (const std::size_t row : told_rows)
    favourite(r, row);
}

// As many layers as can be looked at side by side, one small map each on one scale.
void DomainsMetric::maps(Report& r) const {
  const Index experts = std::ranges::max(shape_.experts);
  const auto cells = std::max<Index>(1, Index(names_.size()) * experts);
  const auto fit = std::clamp<Index>(most_map_cells / cells, 3, most_maps);
  std::vector<std::string> domain;
  std::vector<std::int64_t> number, expert;
  Values values;
  for (const Index l : shown_layers(shape_.layers(), fit)) {
    const auto layer = std::size_t(l);
    const Matrix<double> all = rates(state_[layer].chosen, state_[layer].tokens);
    for (Index d = 0; d < all.rows(); ++d) {
      for (Index e = 0; e < all.cols() && state_[layer].tokens[d]; ++e) {
        number.push_back(shape_.number[layer]);
        domain.push_back(names_[d]);
        expert.push_back(e);
        values["domain_hit_rate"].add(all(d, e),
                                      double(shape_.top_k[layer]) / shape_.experts[layer]);
      }
    }
  }
  TableBuilder t("domain_map", "Which expert takes which domain, layer by layer",
                 section::specialisation);
  t.reading(
       "Share of a domain's tokens that have the expert among their choices. Without "
       "specialisation every row looks the same; random routing is K/E everywhere.")
      .chart(Chart::heatmap);
  t.layers(number).key("domain", "label of the text", domain).key("expert", "expert id", expert);
  t.column("hit rate")
      .unit("share")
      .meaning("tokens of the domain that chose the expert")
      .of("domain_hit_rate", values);
  t.into(r);
}

namespace {

// The columns of the table of every domain and expert that have a value.
void add_rates(TableBuilder& t, const Values& values, const Values::Rows& lifts) {
  t.column("hit rate")
      .unit("share")
      .meaning("tokens of the domain with the expert among their choices")
      .of("domain_hit_rate", values);
  t.column("first choice")
      .unit("share")
      .meaning("tokens of the domain whose first choice it is")
      .of("domain_hit_rate_top1", values);
  t.column("lift")
      .unit("x")
      .meaning("share of the domain's assignments over the share of all assignments")
      .digits(2)
      .rows(lifts);
}

}  // namespace

void DomainsMetric::every_cell(Report& r) const {
  std::vector<std::int64_t> layer, expert;
  std::vector<std::string> domain;
  Values values;
  Values::Rows lifts;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const LabelCounts& s = state_[l];
    const Matrix<double> all = rates(s.chosen, s.tokens);
    const Matrix<double> first = first_rates(s);
    const LabelLift lift(s);
    const double experts = shape_.experts[l];
    for (Index d = 0; d < all.rows(); ++d) {
      for (Index e = 0; e < all.cols() && s.tokens[d]; ++e) {
        layer.push_back(shape_.number[l]);
        domain.push_back(names_[d]);
        expert.push_back(e);
        values["domain_hit_rate"].add(all(d, e), shape_.top_k[l] / experts);
        values["domain_hit_rate_top1"].add(first(d, e), 1 / experts);
        lifts.add(lift(d, e), 1);
      }
    }
  }
  TableBuilder t("domain_hit_rate", "Every domain and expert", section::specialisation);
  t.reading(
       "Hit rate: share of the domain's tokens that chose the expert (random: K/E). Lift: that "
       "expert's share of the domain over its share of all domains (random: 1).")
      .detail();
  t.layers(layer).key("domain", "label of the text", domain).key("expert", "expert id", expert);
  add_rates(t, values, lifts);
  t.into(r);
}

void DomainsMetric::distances(Report& r) const {
  std::vector<std::int64_t> layer;
  std::vector<std::string> one, other;
  Values values{"domain_tv"};
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Matrix<double> all = total_variation(state_[l].chosen);
    const auto tokens = [&](Index d) {
      return double(state_[l].tokens[d]);
    };
    for (Index a = 0; a < all.rows(); ++a) {
      for (Index b = a + 1; b < all.rows(); ++b) {
        if (std::isnan(all(a, b)))
          continue;
        const double harmonic = 2 / (1 / tokens(a) + 1 / tokens(b));
        layer.push_back(shape_.number[l]);
        one.push_back(names_[a]);
        other.push_back(names_[b]);
        values["domain_tv"].add(
            all(a, b), chance::total_variation(shape_.experts[l], shape_.top_k[l], harmonic));
      }
    }
  }
  if (layer.empty())
    return;
  TableBuilder t("domain_distance", "How differently two domains are routed",
                 section::specialisation);
  t.reading(
       "Total variation of the two domains' expert shares: 0 = routed alike, 1 = no expert in "
       "common. Random routing gives the small chance value.")
      .detail();
  t.layers(layer).key("domain", "label", one).key("other", "label", other);
  t.column("distance")
      .meaning("half the sum of the differences of expert shares")
      .of("domain_tv", values);
  t.into(r);
}

void DomainsMetric::report(Report& r) const {
  if (!labelled()) {
    return r.warnings.push_back(
        "no sequence carries a domain label: domain specialisation is left out");
  }
  if (std::all_of(state_.begin(), state_.end(), [](const LabelCounts& s) {
        return column_sums(s.chosen) == std::vector<std::int64_t>(std::size_t(s.chosen.cols()), 0);
      })) {
    return;  // no token chose anybody: there is nothing to tell apart
  }
  summary(r);
  favourites(r);
  maps(r);
  every_cell(r);
  distances(r);
}

}  // namespace moe
