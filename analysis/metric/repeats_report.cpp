// What repeats.h counts, as tables and findings.
#include <cmath>

#include "analysis/metric/finding.h"
#include "analysis/metric/repeats.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
void RepeatsMetric::distinct(Report& r) const {
  TableBuilder t("distinct", "How many experts a batch needs", section::deployment);
  t.reading(
       "Mean number of distinct experts that a block of so many consecutive tokens chooses: what "
       "has to be read from memory for a batch of that size. Random routing: E (1-(1-K/E)^B).")
      .detail();
  t.layers(shape_.number);
  for (std::size_t i = 0; i < asked_.blocks.size(); ++i) {
    Values::Rows rows;
    for (std::size_t l = 0; l < state_.size(); ++l) {
      const Block& b = state_[l].blocks[i];
      rows.add(b.blocks > 0 ? b.sum / b.blocks : no_value,
               chance::distinct_experts(shape_.experts[l], choices(state_[l]), asked_.blocks[i]));
    }
    t.column(concat(asked_.blocks[i], " tokens"))
        .unit("experts")
        .meaning("distinct experts of so many consecutive tokens, mean over blocks")
        .of("distinct_experts")
        .digits(2)
        .rows(rows);
  }
  t.into(r);
}

void RepeatsMetric::lags(Report& r, const Values& values) const {
  TableBuilder t("lags", "Experts kept over distance", section::paths);
  t.reading(
       "Share of a token's experts that the token so many positions later has too; random "
       "routing: K/E. Falls towards the value of unrelated tokens.")
      .detail();
  t.layers(shape_.number);
  const std::vector<double>& overlap = values.at("lag_overlap").value;
  for (std::size_t i = 0; i < lags_.size(); ++i) {
    Values::Rows rows;
    for (std::size_t l = 0; l < state_.size(); ++l) {
      rows.add(state_[l].pairs[i] > 0 ? overlap[l * lags_.size() + i] : no_value,
               choices(state_[l]) / shape_.experts[l]);
    }
    t.column(concat("lag ", lags_[i]))
        .unit("share")
        .meaning("mean overlap at this lag")
        .of("lag_overlap")
        .rows(rows);
  }
  t.into(r);
}

void RepeatsMetric::neighbouring(Report& r, const Values& values) const {
  TableBuilder t("repeats", "Does the next token keep its expert?", section::paths);
  t.reading(
       "Share of neighbouring tokens whose first choice is the same, and that share at least one "
       "expert. Random routing gives 1/E and 1 - C(E-K,K)/C(E,K); "
       "the Mixtral paper found 12.5 % expected and up to 28 % seen for first choices.")
      .chart(Chart::lines);
  t.layers(shape_.number);
  if (state_[0].ranked) {
    t.column("same first choice")
        .unit("share")
        .meaning("neighbours with the same first choice")
        .of("repeat_first", values);
  }
  t.column("a common expert")
      .unit("share")
      .meaning("neighbours with at least one expert in common")
      .of("repeat_any", values);
  t.into(r);
}

void RepeatsMetric::report(Report& r) const {
  if (state_.empty() || state_[0].neighbours == 0)
    return;
  Values all(values());
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const double first = 1.0 / shape_.experts[l];
    const double any = chance::repeat_any(shape_.experts[l], choices(state_[l]));
    const double pairs = state_[l].neighbours;
    // neighbouring pairs are independent at random
    all["repeat_first"].chance.add({first, std::sqrt(first * (1 - first) / pairs)});
    all["repeat_any"].chance.add({any, std::sqrt(any * (1 - any) / pairs)});
  }
  neighbouring(r, all);
  lags(r, all);
  distinct(r);
  finding(r);
}

void RepeatsMetric::finding(Report& r) const {
  if (state_[0].ranked)
    kept(r, "same first choice", "keep their first expert");
  else
    kept(r, "a common expert", "share an expert");
}

void RepeatsMetric::kept(Report& r, const char* column, const char* what) const {
  const QuotedTable t(r, "repeats");
  const Column& same = t.column(column);
  const std::size_t best = largest(t.numbers(column));
  const double pairs = state_[best].neighbours;
  const Standing s =
      standing(t.numbers(column)[best], {same.chance.at(best), same.chance_spread.at(best)},
               {.tokens = pairs, .figures = double(state_.size())});
  const Finding often =
      told(what, " in ", t.cell(same, best).percent(), " of cases in layer ", t.cell("layer", best),
           ", the most of all layers (random routing: ", t.chance(column, best).percent(), ").");
  if (s.shown == Shown::too_few) {
    return tell(r, too_few(pairs, concat("whether neighbouring tokens ", what), s.needed), " They ",
                often);
  }
  if (s.shown == Shown::more)
    return tell(r, "Neighbouring tokens ", often);
  tell(r, Priority::chance, "Neighbouring tokens are no closer than random ones: they ", often);
}

}  // namespace moe
