// What coactivation.h counts, as tables and findings.
#include "analysis/metric/coactivation.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
namespace {
constexpr const char* together = "which experts are chosen together";
}  // namespace

struct CoactivationMetric::Listed {  // rows of the table of pairs
  std::vector<std::int64_t> layer, one, other, together;
  std::vector<double> chance_together;
  Values values{"coactivation_conditional", "coactivation_npmi"};
  Values::Rows lift;
};

void CoactivationMetric::list(std::size_t l, const chance::ClosestPairs& lot, Listed& rows) const {
  const State& s = state_[l];
  const double e = shape_.experts[l];
  const double k = choices(s);
  const auto npmi = coactivation_npmi(s.pairs, s.tokens);
  const std::vector<Pair> all = sorted(s);
  for (std::size_t n = 0; n < std::min(all.size(), std::size_t(top_)); ++n) {
    const Pair& p = all[n];
    const chance::PairValue& random = lot.listed[n];
    // the rarer expert first: given it, how sure is the other?
    const bool swap = s.pairs(p.i, p.i) > s.pairs(p.j, p.j);
    const Index a = swap ? p.j : p.i;
    const Index b = swap ? p.i : p.j;
    rows.layer.push_back(shape_.number[l]);
    rows.one.push_back(a);
    rows.other.push_back(b);
    rows.together.push_back(s.pairs(a, b));
    rows.chance_together.push_back(random.lift.mean * double(s.tokens) * k * k / (e * e));
    rows.values["coactivation_conditional"].add(double(s.pairs(a, b)) / double(s.pairs(a, a)),
                                                random.conditional);
    rows.lift.add(p.lift, random.lift);
    rows.values["coactivation_npmi"].add(npmi(a, b), random.npmi);
  }
}

void CoactivationMetric::pairs(Report& r) const {
  Listed rows;
  Values largest;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const chance::ClosestPairs& lot = by_lot(l);
    largest["coactivation_max_lift"].add(coactivation_max_lift(state_[l].pairs, state_[l].tokens),
                                         lot.max_lift);
    list(l, lot, rows);
  }
  table_of_pairs(r, rows);
  TableBuilder t("coactivation_lift", "The largest lift of each layer", section::coactivation);
  t.reading(
       "Of all pairs, however rarely chance would bring them together: of few tokens that is one "
       "chance meeting. The chance value is the largest lift under random routing.")
      .detail();
  t.layers(shape_.number);
  t.column("largest lift")
      .unit("x")
      .meaning("of all pairs of the layer")
      .of("coactivation_max_lift", largest)
      .digits(2);
  t.into(r);
  finding(r);
}

// Of the closest pair of all layers, the lower expert first. Tokens with one choice have none.
void CoactivationMetric::finding(Report& r) const {
  const QuotedTable t(r, "coactivation");
  if (t.rows() == 0)
    return;
  const std::size_t best = largest(t.numbers("lift"));
  if (t.numbers("lift")[best] <= 0)
    return;
  const QuotedCell one = t.cell("expert", best);
  const QuotedCell other = t.cell("with", best);
  const bool in_order = one.number() < other.number();
  const Column& lift = t.column("lift");
  const double seen = double(state_[0].tokens);
  const Standing s =
      standing(t.numbers("lift")[best], {lift.chance.at(best), lift.chance_spread.at(best)},
               {.tokens = seen, .figures = double(state_.size()), .worth = 0.5});
  // so few tokens that random routing brings no pair together often enough to be listed
  const bool none_by_chance = std::isnan(lift.chance.at(best));
  const Finding chance = none_by_chance ? told("random routing of this size has none to list")
                                        : told("closest pair of a layer under random routing: ",
                                               t.chance("lift", best).figure(), "x");
  const Finding pair =
      told(in_order ? one : other, " and ", in_order ? other : one, " of layer ",
           t.cell("layer", best), ": chosen together ", t.cell("lift", best).figure(),
           "x as often as their loads would give (", chance, ").");
  switch (s.shown) {
    case Shown::more:
      return tell(r, "The closest pair of experts is ", pair);
    case Shown::no_more:
      return tell(r, Priority::chance,
                  "No two experts are chosen together more than random routing would have it; "
                  "the closest are ",
                  pair);
    case Shown::too_few:
      return tell(r, too_few(seen, together, s.needed), " The closest pair is ", pair);
  }
}

// Pairs of the first layer are expected five times in so many tokens.
std::string CoactivationMetric::no_pairs() const {
  const double fair = choices(state_[0]) / shape_.experts[0];
  return too_few(double(state_[0].tokens), together, std::ceil(5 / (fair * fair))).text;
}

void CoactivationMetric::table_of_pairs(Report& r, const Listed& rows) const {
  TableBuilder t("coactivation", "Experts that are chosen together", section::coactivation);
  t.reading(
      "The pairs with the largest lift: how much more often a token takes both than their loads "
      "alone would give. The chance values are those of the closest, second closest, ... pair "
      "under "
      "random routing; a pair drawn blindly has a lift of E(K-1)/(K(E-1)), a little below 1. "
      "Pairs that chance would bring together less than 5 times are left out.");
  t.layers(rows.layer).key("expert", "the rarer of the two", rows.one);
  t.key("with", "the other", rows.other);
  t.column("together")
      .unit("tokens")
      .meaning("tokens that chose both")
      .of("coactivation_counts")
      .values(rows.together)
      .chance(rows.chance_together);
  t.column("given the first")
      .unit("share")
      .meaning("share of the first expert's tokens that chose the other too")
      .of("coactivation_conditional", rows.values);
  t.column("lift")
      .unit("x")
      .meaning("times as often as if the two were chosen independently")
      .digits(2)
      .rows(rows.lift);
  t.column("NPMI")
      .meaning(
          "normalised pointwise mutual information: -1 never together, 0 independent, 1 only "
          "together")
      .of("coactivation_npmi", rows.values);
  if (rows.layer.empty() && choices(state_[0]) > 1)
    t.warn(no_pairs());
  t.into(r);
}

void CoactivationMetric::map(Report& r, Index l) const {
  const State& s = state_[l];
  const Matrix<double> conditional = coactivation_conditional(s.pairs);
  const double e = shape_.experts[l];
  std::vector<std::int64_t> row, col;
  Values values;
  for (Index i = 0; i < conditional.rows(); ++i) {
    for (Index j = 0; j < conditional.cols(); ++j) {
      row.push_back(i);
      col.push_back(j);
      values["coactivation_conditional"].add(i == j ? no_value : conditional(i, j),
                                             (choices(s) - 1) / (e - 1));
    }
  }
  const std::int64_t number = shape_.number[l];
  TableBuilder t(concat("coactivation_map_", number), concat("Layer ", number, ": chosen together"),
                 section::coactivation);
  t.reading(
       "Row i, column j: share of expert i's tokens that chose j too; random routing: "
       "(K-1)/(E-1) everywhere. A bright column is merely a busy expert.")
      .chart(Chart::heatmap)
      .detail();
  t.key("expert", "given", row).key("with", "chosen too", col);
  t.column("share").unit("share").meaning("P(column | row)").of("coactivation_conditional", values);
  t.into(r);
}

void CoactivationMetric::maps(Report& r) const {
  const Index fit = maps_within(memory_, shape_.max_experts(), shape_.max_experts());
  if (fit < 1) {
    r.warnings.push_back(
        "the maps of experts chosen together are left out: a row for each pair of experts would "
        "take more than --memory allows");
  }
  for (const Index l : shown_layers(shape_.layers(), std::min<Index>(3, fit)))
    map(r, l);
}

void CoactivationMetric::report(Report& r) const {
  bool any = false;
  for (const State& s : state_)
    any |= s.assignments > s.tokens;
  if (!any)
    return;  // one expert a token: nothing is chosen together
  pairs(r);
  maps(r);
}

}  // namespace moe
