// Where tokens go, layer by layer: the shares of the steps between the busiest experts, all others
// taken together.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/metric/crosslayer.h"
#include "analysis/metric/table_builder.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::size_t most_steps = 11;    // of layers drawn side by side
constexpr std::size_t most_experts = 12;  // of a layer; the others are one

// The steps that are drawn: all of them, or those neighbours that tell most of each other.
std::size_t first_step(std::span<const double> information) {
  std::size_t best = 0;
  double most = -1;
  for (std::size_t l = 0; l + most_steps <= information.size(); ++l) {
    const auto part = information.subspan(l, most_steps);
    const double sum = std::accumulate(part.begin(), part.end(), 0.0);
    if (sum > most) {
      most = sum;
      best = l;
    }
  }
  return best;
}

// Place of each expert among those drawn: the busiest by themselves, in the order of their ids, and
// one behind them for all others.
struct Drawn {
  std::vector<Index> place;       // (E)
  std::vector<std::string> name;  // of each place
  std::vector<double> experts;    // that it stands for
};

Drawn drawn(std::span<const std::int64_t> tokens) {
  std::vector<std::size_t> order(tokens.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](auto a, auto b) { return tokens[a] > tokens[b]; });
  order.resize(std::min(order.size(), most_experts));
  std::ranges::sort(order);
  Drawn out{std::vector<Index>(tokens.size(), Index(order.size())), {}, {}};
  for (const std::size_t e : order) {
    out.place[e] = Index(out.name.size());
    out.name.push_back(concat(e));
    out.experts.push_back(1);
  }
  if (tokens.size() > order.size()) {
    out.name.emplace_back("others");
    out.experts.push_back(double(tokens.size() - order.size()));
  }
  return out;
}

// Of first choices (E,E'): the same between places.
Counts between(const Counts& all, const Drawn& from, const Drawn& to) {
  Counts out(Index(from.name.size()), Index(to.name.size()));
  for (Index a = 0; a < all.rows(); ++a) {
    for (Index b = 0; b < all.cols(); ++b)
      out(from.place[a], to.place[b]) += all(a, b);
  }
  return out;
}

struct Rows {
  std::vector<std::string> step, from, to;
  Values::Rows share, lift;

  // The steps of one pair of layers.
  void add(const std::string& name, const Counts& all) {
    const Drawn a = drawn(row_sums(all));
    const Drawn b = drawn(column_sums(all));
    const Counts j = between(all, a, b);
    const auto rows = row_sums(j);
    const auto cols = column_sums(j);
    const double n = double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
    for (Index r = 0; r < j.rows(); ++r) {
      for (Index c = 0; c < j.cols(); ++c) {
        const double lot = a.experts[r] * b.experts[c] / (double(all.rows()) * double(all.cols()));
        const double independent = double(rows[r]) * double(cols[c]) / n;
        step.push_back(name);
        from.push_back(a.name[r]);
        to.push_back(b.name[c]);
        share.add(double(j(r, c)) / n, {lot, std::sqrt(lot * (1 - lot) / n)});
        lift.add(independent > 0 ? double(j(r, c)) / independent : no_value,
                 {1, independent > 0 ? 1 / std::sqrt(independent) : no_value});
      }
    }
  }
};

}  // namespace

void CrossLayerMetric::flow(Report& r, const Values& values) const {
  const std::size_t first = first_step(values.at("crosslayer_mi_bits").value);
  Rows rows;
  for (std::size_t l = first; l < std::min(state_.size(), first + most_steps); ++l) {
    if (tokens(state_[l]) > 0)
      rows.add(step(l), state_[l].first);
  }
  TableBuilder t("flow", "Where tokens go from layer to layer", section::paths);
  t.reading(
       "First choices: each column is a layer, each block an expert as tall as its share of the "
       "tokens, each ribbon the tokens that go from one to the other. Ribbons that are as wide as "
       "they would be if the layers ignored each other are faded.")
      .chart(Chart::flow)
      .detail();
  if (state_.size() > most_steps) {
    t.warn(concat("drawn are the ", most_steps + 1,
                  " neighbouring layers that tell most of each other, of ", state_.size() + 1));
  }
  t.key("layers", "from and to, absolute numbers", rows.step);
  t.key("from", "expert, or all but the busiest together", rows.from);
  t.key("to", "the same, of the next layer", rows.to);
  t.column("share").unit("share").meaning("of all tokens").digits(4).rows(rows.share);
  t.column("lift")
      .unit("x")
      .meaning("times as often as if the layers were independent")
      .digits(2)
      .rows(rows.lift);
  t.into(r);
}

}  // namespace moe
