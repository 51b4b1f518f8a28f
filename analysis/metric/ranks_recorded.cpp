// The load of the ranks that computed a trace, as it was: where its rows say which rank had a
// token, and the file how experts were shared out.
#include <algorithm>
#include <numeric>
#include <utility>

#include "analysis/metric/ranks.h"
#include "lib/core/text.h"

namespace moe {

int RanksMetric::recorded_owners(const TraceSource& trace, const Shape& shape) {
  const std::uint32_t ranks = trace.header().expert_ranks;
  const bool possible =
      std::ranges::all_of(shape.experts, [ranks](int e) { return ranks <= std::uint32_t(e); });
  return possible && trace.fields().rank && !counts_only(trace) ? int(ranks) : 0;
}

void RanksMetric::record(State& s, const LayerRows& rows, Index t, int rank) const {
  Recorded& to = s.recorded;
  const int group = rank / owners_ * owners_;
  const auto ranks = std::size_t(group + owners_);
  if (to.now.size() < ranks)
    to.now.resize(ranks);
  if (to.tokens.size() < ranks)
    to.tokens.resize(ranks);
  ++to.tokens[std::size_t(rank)];
  for (Index j = 0; j < rows.expert.cols(); ++j) {
    const bool dropped = rows.kept.empty() && !rows.dropped.empty() && rows.dropped(t, j);
    const int expert = rows.kept.empty() ? rows.expert(t, j) : rows.kept(t, j);
    if (!dropped && expert >= 0 && std::size_t(expert) < to.owner_of.size())
      ++to.now[std::size_t(group + to.owner_of[std::size_t(expert)])];
  }
}

void RanksMetric::end_recorded_step(Recorded& s) {
  const std::vector<std::int64_t> step = std::exchange(s.now, {});
  const std::int64_t all = std::accumulate(step.begin(), step.end(), std::int64_t(0));
  s.rows.resize(std::max(s.rows.size(), step.size()));
  for (std::size_t r = 0; r < step.size(); ++r)
    s.rows[r] += step[r];
  if (all == 0)
    return;
  s.imbalance += double(*std::ranges::max_element(step)) * double(step.size()) / double(all) - 1;
  ++s.steps;
}

// Over all layers; the imbalance of each in the mean of its steps, and `steps` the layers that had
// any.
RanksMetric::Recorded RanksMetric::recorded_in_all() const {
  Recorded all;
  for (const State& s : layer_) {
    Recorded of = s.recorded;
    end_recorded_step(of);
    if (of.steps > 0) {
      all.imbalance += of.imbalance / double(of.steps);
      ++all.steps;
    }
    all.rows.resize(std::max(all.rows.size(), of.rows.size()));
    all.tokens.resize(all.rows.size());
    for (std::size_t i = 0; i < of.rows.size(); ++i) {
      all.rows[i] += of.rows[i];
      all.tokens[i] = std::max(all.tokens[i], of.tokens[i]);
    }
  }
  return all;
}

// One row a rank.
void RanksMetric::recorded(Report& r) const {
  const Recorded all = recorded_in_all();
  const std::vector<std::int64_t>& rows = all.rows;
  if (all.steps == 0)
    return;
  const double mean =
      double(std::accumulate(rows.begin(), rows.end(), std::int64_t(0))) / double(rows.size());
  std::vector<std::int64_t> rank(rows.size());
  std::iota(rank.begin(), rank.end(), std::int64_t(0));
  std::vector<double> load;
  for (const std::int64_t n : rows)
    load.push_back(double(n) / mean);
  TableBuilder t("ranks_recorded", "Load by rank, as it was", section::deployment);
  t.reading(concat(
      rows.size() == 1 ? "The rank that computed this trace" : "The ranks that computed this trace",
      owners_ == 1 ? ", each the rows of its own tokens. "
                   : concat(", of which every ", owners_,
                            " had the experts of a layer among them in order. "),
      "A step waits for the largest: over the mean, less 1, that was ",
      figure(all.imbalance / double(all.steps)),
      " in the mean of steps and layers. Dropped choices are no rows. The tables beside it say "
      "what other numbers of ranks would have had."));
  t.key("rank", "that computed tokens and rows", rank);
  t.column("tokens").unit("tokens").meaning("of its micro-batches").values(all.tokens);
  t.column("rows")
      .unit("assignments")
      .meaning("choices whose experts it computed, all layers")
      .values(rows);
  t.column("load").unit("x mean").meaning("its rows over the mean of ranks").values(load).digits(2);
  t.into(r);
}

}  // namespace moe
