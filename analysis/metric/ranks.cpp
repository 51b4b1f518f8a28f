// Experts spread over ranks and nodes (expert parallelism): how uneven the ranks are, and what
// all-to-all has to send. Experts stand on ranks in order, rank = e R / E, and ranks on nodes
// likewise; counts per rank and per step are all that is kept.
#include <bit>
#include <cmath>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/layout.h"
#include "lib/core/clones.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double sglang_epsilon = 1e-5;

struct State {  // of one layer
  // (E) choices, and those up to the last step that ended
  std::vector<std::int64_t> counts, before;
  std::vector<int> rank_of, node_of;  // (E)
  // (E): the rank of an expert at the largest size, as a bit
  std::vector<std::uint64_t> bit;
  // (E): its rank and node at ep_size; up to 64 ranks
  std::vector<std::uint64_t> rank_bit, node_bit;
  // (sizes) distinct ranks, summed over tokens
  std::vector<std::int64_t> at_size;
  std::vector<std::int64_t> seen_rank, seen_node;  // token that last met it
  Matrix<std::int64_t> tokens_to, copies_to;       // (R,R) by source and destination
  std::int64_t tokens = 0, assignments = 0, ranks = 0, nodes = 0, sends = 0, foreign = 0, steps = 0;
  double imbalance = 0;
  std::uint32_t step = 0;
};

// Distinct ranks of a token at every size of the sweep, 2, 4, .. at_size.size() of them: an
// expert's rank at one size is half of that at twice the size, so the ranks of the largest are
// folded two and two.
MOE_SIMD void sweep(State& s, const Window& w, Index l) {
  const LayerChoices& choices = w.layer[std::size_t(l)];
  std::int64_t sum[6] = {};
  const int sizes = int(s.at_size.size());
  for (const Index t : w.valid) {
    std::uint64_t seen = 0;
    for (const int e : choices.of(t))
      seen |= s.bit[std::size_t(e)];
    constexpr std::uint64_t every[] = {~std::uint64_t{0},  0x5555555555555555, 0x1111111111111111,
                                       0x0101010101010101, 0x0001000100010001, 0x0000000100000001};
    for (int i = sizes - 1, fold = 0; i >= 0; --i, ++fold) {  // ranks stand 2^fold bits apart
      if (fold)
        seen = (seen | seen >> (1 << (fold - 1))) & every[fold];
      sum[i] += std::popcount(seen);
    }
  }
  for (int i = 0; i < sizes; ++i)
    s.at_size[std::size_t(i)] += sum[i];
}

// What own() below counts of the tokens of one step, `count` of them at `valid`, where up to 64
// ranks have a bit each and no token has a rank.
MOE_SIMD void own_bits(State& s, const LayerChoices& choices, const Index* valid,
                       std::size_t count) {
  std::int64_t ranks = 0;
  std::int64_t nodes = 0;
  std::int64_t assignments = 0;
  const std::uint64_t* rank = s.rank_bit.data();
  const std::uint64_t* node = s.node_bit.data();
  std::int64_t* counts = s.counts.data();
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t on = 0;
    std::uint64_t at = 0;
    for (const int e : choices.of(valid[i])) {
      ++counts[e];
      on |= rank[e];
      at |= node[e];
      ++assignments;
    }
    ranks += std::popcount(on);
    nodes += std::popcount(at);
  }
  s.ranks += ranks;
  s.nodes += nodes;
  s.assignments += assignments;
  s.tokens += std::int64_t(count);
}

class Ranks final : public Metric {
 public:
  Ranks(Spec& spec, const TraceSource& trace)
      : shape_(trace),
        ep_(spec.get("ep_size", usual_ranks(shape_), 1)),
        nodes_(spec.get("num_nodes", ep_ % 2 ? 1 : 2, 1)),
        has_rank_(trace.fields().rank),
        layer_(shape_.experts.size()) {
    if (ep_ > 4096) {
      throw Error(Exit::usage, concat("ranks: ep_size=", ep_,
                                      " is more than the 4096 that matrices are kept for"));
    }
    if (ep_ % nodes_) {
      throw Error(Exit::usage,
                  concat("ranks: ep_size=", ep_, " does not divide into num_nodes=", nodes_))
          .hint("each node holds the same number of ranks");
    }
    const int most = shape_.max_experts();
    for (int r = 2; r <= std::min(64, most); r *= 2)
      sizes_.push_back(r);
    for (std::size_t l = 0; l < layer_.size(); ++l)
      prepare(layer_[l], shape_.experts[l]);
  }

  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.rank = has_rank_;
    return f;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = layer_[std::size_t(l)];
    const LayerChoices& choices = w.layer[std::size_t(l)];
    const bool from = !w.rows.rank.empty();
    if (!sizes_.empty())
      sweep(s, w, l);
    for (std::size_t i = 0; i < w.valid.size();) {
      const std::uint32_t step = w.rows.step[std::size_t(w.valid[i])];
      if (step != s.step) {
        end_step(s);
        s.step = step;
      }
      const std::size_t first = i;
      while (i < w.valid.size() && w.rows.step[std::size_t(w.valid[i])] == step)
        ++i;
      if (!from && !s.rank_bit.empty()) {
        own_bits(s, choices, w.valid.data() + first, i - first);
        continue;
      }
      for (std::size_t j = first; j < i; ++j) {
        const Index t = w.valid[j];
        ++s.tokens;
        own(s, choices.of(t), from ? int(w.rows.rank[std::size_t(t)]) : -1);
      }
    }
  }

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  void prepare(State& s, int experts) const {
    const auto n = std::size_t(experts);
    const auto r = std::size_t(ep_);
    s.counts.assign(n, 0);
    s.before.assign(n, 0);
    s.seen_rank.assign(r, 0);
    s.seen_node.assign(std::size_t(nodes_), 0);
    for (int e = 0; e < experts; ++e) {
      s.rank_of.push_back(int(std::int64_t(e) * ep_ / experts));
      s.node_of.push_back(s.rank_of.back() / (ep_ / nodes_));
    }
    for (int e = 0; e < experts && !sizes_.empty(); ++e)
      s.bit.push_back(std::uint64_t{1} << (std::int64_t(e) * sizes_.back() / experts));
    for (int e = 0; e < experts && ep_ <= 64; ++e) {
      s.rank_bit.push_back(std::uint64_t{1} << s.rank_of[std::size_t(e)]);
      s.node_bit.push_back(std::uint64_t{1} << s.node_of[std::size_t(e)]);
    }
    s.at_size.assign(sizes_.size(), 0);
    if (has_rank_)
      s.tokens_to = s.copies_to = Matrix<std::int64_t>(ep_, ep_);
  }
  // everything at ep_size and num_nodes
  void own(State& s, std::span<const int> chosen, int source) const {
    const bool placed = source >= 0 && source < ep_;
    const int per_node = ep_ / nodes_;
    for (const int e : chosen) {
      const int r = s.rank_of[std::size_t(e)];
      const int node = s.node_of[std::size_t(e)];
      ++s.counts[std::size_t(e)];
      const bool fresh = s.seen_rank[std::size_t(r)] != s.tokens;
      if (fresh) {
        s.seen_rank[std::size_t(r)] = s.tokens;
        ++s.ranks;
      }
      if (placed) {
        s.tokens_to(source, r) += fresh;
        ++s.copies_to(source, r);
      }
      if (s.seen_node[std::size_t(node)] == s.tokens)
        continue;
      s.seen_node[std::size_t(node)] = s.tokens;
      ++s.nodes;
      s.sends += placed && node != source / per_node;
    }
    s.assignments += std::int64_t(chosen.size());
    s.foreign += source >= ep_;
  }
  void end_step(State& s) const {
    std::vector<std::int64_t> load(std::size_t(ep_), 0);
    std::int64_t all = 0;
    for (std::size_t e = 0; e < s.counts.size(); ++e) {
      load[std::size_t(s.rank_of[e])] += s.counts[e] - s.before[e];
      all += s.counts[e] - s.before[e];
    }
    if (all == 0)
      return;
    s.imbalance +=
        double(*std::max_element(load.begin(), load.end())) * double(ep_) / double(all) - 1;
    ++s.steps;
    s.before = s.counts;
  }
  struct Load {
    double mean, most;
  };
  static Load rank_load(std::span<const std::int64_t> counts, int ranks) {
    std::vector<std::int64_t> load(std::size_t(ranks), 0);
    std::int64_t all = 0;
    for (std::size_t e = 0; e < counts.size(); ++e) {
      load[e * std::size_t(ranks) / counts.size()] += counts[e];
      all += counts[e];
    }
    return {double(all) / ranks, double(*std::max_element(load.begin(), load.end()))};
  }
  static double balancedness(std::span<const std::int64_t> counts, int ranks) {
    const Load r = rank_load(counts, ranks);
    return r.mean / r.most;  // nothing at all: NaN
  }
  double choices(const State& s) const {
    return double(s.assignments) / double(s.tokens);
  }
  chance::Value chance_balancedness(Memo& memo, std::size_t l, int ranks, std::int64_t tokens,
                                    bool imbalance) const {
    const int k = whole_choices(choices(layer_[l]), shape_.experts[l]);
    return memo.get(
        {double(shape_.experts[l]), double(k), double(tokens), double(ranks), double(imbalance)},
        [&] {
          return chance::simulate_load(shape_.experts[l], k, tokens, 1, [&](auto counts) {
            const double b = balancedness(counts, ranks);
            return std::vector<double>{imbalance ? 1 / b - 1 : b};
          });
        })[0];
  }
  void by_size(Report&, Memo&) const;
  void by_layer(Report&, Memo&) const;
  void whole(Report&, Memo&) const;
  void matrix(Report&) const;

  Shape shape_;
  int ep_, nodes_;
  bool has_rank_;
  std::vector<int> sizes_;  // of the sweep
  std::vector<State> layer_;
};

std::vector<MetricValue> Ranks::values() const {
  std::vector<double> imbalance, balanced, ranks, dedup, nodes, sends;
  std::vector<Matrix<double>> tokens_to, copies_to;
  double means = 0;
  double mosts = 0;
  double smoothed = 0;
  for (State s : layer_) {
    end_step(s);
    const Load load = rank_load(s.counts, ep_);
    imbalance.push_back(s.imbalance / double(s.steps));
    balanced.push_back(load.mean / load.most);
    means += load.mean;
    mosts += load.most;
    smoothed += (load.mean + sglang_epsilon) / (load.most + sglang_epsilon) / double(layer_.size());
    ranks.push_back(double(s.ranks) / double(s.tokens));
    dedup.push_back(double(s.ranks) / double(s.assignments));
    nodes.push_back(double(s.nodes) / double(s.tokens));
    sends.push_back(double(s.sends));
    if (has_rank_) {
      tokens_to.push_back(as_double(s.tokens_to));
      copies_to.push_back(as_double(s.copies_to));
    }
  }
  std::vector<MetricValue> out{
      per_layer("ep_rank_imbalance", imbalance),
      per_layer("ep_balancedness", balanced),
      {"ep_balancedness_sum_ratio", {}, {means / mosts}},
      {"ep_balancedness_eps_mean", {}, {layer_.empty() ? no_value : smoothed}},
      per_layer("a2a_distinct_ranks", ranks),
      per_layer("a2a_dedup_factor", dedup),
      per_layer("a2a_distinct_nodes", nodes)};
  if (has_rank_) {
    out.push_back(per_layer("a2a_matrix", tokens_to));
    out.push_back(per_layer("a2a_matrix_copies", copies_to));
    out.push_back(per_layer("a2a_internode_sends", sends));
  }
  return out;
}

void Ranks::by_size(Report& r, Memo& memo) const {
  std::vector<std::int64_t> size;
  std::vector<double> v[3];
  Nulls null[3];
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    size.push_back(sizes_[i]);
    double sum[3] = {};
    double layers = 0;
    std::vector<chance::Value> random[3];
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const State& s = layer_[l];
      if (s.assignments == 0)
        continue;
      layers += 1;
      const double ranks = chance::distinct_ranks(shape_.experts[l], choices(s), sizes_[i]);
      sum[0] += double(s.at_size[i]) / double(s.tokens);
      random[0].push_back({ranks});
      sum[1] += double(s.at_size[i]) / double(s.assignments);
      random[1].push_back({ranks / choices(s)});
      sum[2] += balancedness(s.counts, sizes_[i]);
      random[2].push_back(chance_balancedness(memo, l, sizes_[i], s.tokens, false));
    }
    for (int c = 0; c < 3; ++c) {
      v[c].push_back(sum[c] / layers);
      null[c].add(chance::mean_of_independent(random[c]));
    }
  }
  r.tables.push_back(
      {"all_to_all",
       "Experts over ranks: what it would cost",
       "Mean over layers, experts placed on the ranks in order. A token is sent once to every rank "
       "that holds one of its experts; the dedup factor is what that saves "
       "against one copy an expert (1 = nothing). Balancedness is mean over largest load of a "
       "rank, 1 = even. Chance values: tokens that draw their experts by lot.",
       Chart::none,
       {column({"ranks", "", "expert-parallel size", ""}, size),
        column({"ranks a token", "ranks", "distinct ranks that hold a token's experts",
                "a2a_distinct_ranks", 2},
               v[0], null[0]),
        column({"dedup factor", "", "distinct ranks over choices", "a2a_dedup_factor"}, v[1],
               null[1]),
        column({"balancedness", "", "mean over largest load of the ranks, whole trace",
                "ep_balancedness"},
               v[2], null[2])},
       section::deployment,
       false,
       {}});
  const auto usual = std::find(sizes_.begin(), sizes_.end(), std::max(2, usual_ranks(shape_)));
  const std::size_t i = usual == sizes_.end() ? 0 : std::size_t(usual - sizes_.begin());
  r.findings.push_back("On " + std::to_string(sizes_[i]) +
                       " expert-parallel ranks a token goes to " + figure(v[0][i]) +
                       " of them (random routing: " + figure(null[0].value[i]) +
                       "), and the ranks' loads have a balancedness of " + figure(v[2][i]) +
                       " (random routing: " + figure(null[2].value[i]) + ").");
}

void Ranks::by_layer(Report& r, Memo& memo) const {
  const auto all = values();
  Nulls null[5];
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    State s = layer_[l];
    end_step(s);
    const double k = choices(s);
    const int e = shape_.experts[l];
    const chance::Value step =
        chance_balancedness(memo, l, ep_, rounded(double(s.tokens) / double(s.steps)), true);
    null[0].add({step.mean, step.spread / std::sqrt(double(std::max<std::int64_t>(1, s.steps)))});
    null[1].add(chance_balancedness(memo, l, ep_, s.tokens, false));
    const double ranks = chance::distinct_ranks(e, k, ep_);
    // nodes hold experts in order too
    null[2].add({ranks});
    null[3].add({ranks / k});
    null[4].add({chance::distinct_ranks(e, k, nodes_)});
  }
  Table t{
      "ranks",
      "Layer by layer on " + std::to_string(ep_) + " ranks in " + std::to_string(nodes_) +
          (nodes_ == 1 ? " node" : " nodes"),
      "Imbalance is what a step waits for: the largest load of a rank over the mean, less 1, for "
      "each step alone. Random routing is uneven too, the more the smaller a step.",
      Chart::none,
      {column({"layer", "", "absolute layer number", ""}, shape_.number),
       column({"imbalance", "x mean", "mean over steps of largest over mean load of a rank, less 1",
               "ep_rank_imbalance"},
              all[0].values, null[0]),
       column(
           {"balancedness", "", "mean over largest load of a rank, whole trace", "ep_balancedness"},
           all[1].values, null[1]),
       column({"ranks a token", "ranks", "distinct ranks of a token's experts",
               "a2a_distinct_ranks", 2},
              all[4].values, null[2]),
       column({"dedup factor", "", "distinct ranks over choices", "a2a_dedup_factor"},
              all[5].values, null[3]),
       column({"nodes a token", "nodes", "distinct nodes of a token's experts",
               "a2a_distinct_nodes", 2},
              all[6].values, null[4])},
      section::deployment,
      true,
      {}};
  if (has_rank_) {
    std::vector<double> other;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      other.push_back(double(layer_[l].tokens - layer_[l].foreign) * null[4].value[l] *
                      (nodes_ - 1) / nodes_);
    }
    t.columns.push_back(
        column({"sends to other nodes", "tokens",
                "distinct nodes of a token's experts other than its own", "a2a_internode_sends", 0},
               all[9].values, other));
    if (layer_[0].foreign) {
      t.warnings.push_back(std::to_string(layer_[0].foreign) +
                           " tokens come from ranks beyond the " + std::to_string(ep_) +
                           " and are in no matrix: set ranks:ep_size=");
    }
  }
  r.tables.push_back(std::move(t));
}

void Ranks::whole(Report& r, Memo& memo) const {
  const auto all = values();
  double means = 0;
  double mosts = 0;
  std::vector<chance::Value> each;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const double mean = double(layer_[l].assignments) / ep_;
    means += mean;
    mosts += mean * (1 + chance_balancedness(memo, l, ep_, layer_[l].tokens, true).mean);
    each.push_back(chance_balancedness(memo, l, ep_, layer_[l].tokens, false));
  }
  Nulls eps;
  eps.add(chance::mean_of_independent(each));
  r.tables.push_back(
      {"ranks_whole",
       "All layers in one number, on " + std::to_string(ep_) + " ranks",
       "Two ways in which engines sum balancedness up: the ratio of the sums weighs layers by "
       "their load, the mean of ratios (with an epsilon) all alike. 1 = even.",
       Chart::none,
       {column({"ranks", "", "expert-parallel size", ""}, std::vector<std::int64_t>{ep_}),
        column({"ratio of sums", "", "sum over layers of the mean over the sum of the largest load",
                "ep_balancedness_sum_ratio"},
               all[2].values, std::vector<double>{means / mosts}),
        column({"mean of ratios", "", "mean over layers of mean over largest load",
                "ep_balancedness_eps_mean"},
               all[3].values, eps)},
       section::deployment,
       true,
       {}});
}

void Ranks::matrix(Report& r) const {
  std::vector<std::int64_t> from, to;
  std::vector<double> sent, copies, lot, lot_copies;
  for (int a = 0; a < ep_; ++a) {
    for (int b = 0; b < ep_; ++b) {
      for (auto* column : {&sent, &copies, &lot, &lot_copies})
        column->push_back(0);
      for (std::size_t l = 0; l < layer_.size(); ++l) {
        const State& s = layer_[l];
        const auto row = s.copies_to.row(a);
        const double k = choices(s);
        const double all = std::accumulate(row.begin(), row.end(), 0.0);
        const double here = double(std::count(s.rank_of.begin(), s.rank_of.end(), b));
        sent.back() += double(s.tokens_to(a, b));
        copies.back() += double(s.copies_to(a, b));
        lot.back() += all / k * chance::meets(shape_.experts[l], k, here);
        lot_copies.back() += all * here / shape_.experts[l];
      }
      from.push_back(a);
      to.push_back(b);
    }
  }
  r.tables.push_back(
      {"a2a_matrix",
       "Tokens from rank to rank",
       "Summed over layers; a token counts once for each rank that holds one of its experts. "
       "Random routing sends every row evenly, to ranks with more experts more.",
       Chart::heatmap,
       {column({"from", "", "source rank", ""}, from),
        column({"to", "", "rank of the expert", ""}, to),
        column({"tokens", "tokens", "tokens sent", "a2a_matrix", 0}, sent, lot)},
       section::deployment,
       true,
       {}});
  r.tables.push_back({"a2a_matrix_copies",
                      "Copies from rank to rank",
                      "Summed over layers; a token counts once for each of its experts. Random "
                      "routing sends every row evenly, to ranks with more experts more.",
                      Chart::none,
                      {column({"from", "", "source rank", ""}, from),
                       column({"to", "", "rank of the expert", ""}, to),
                       column({"copies", "assignments", "assignments sent", "a2a_matrix_copies", 0},
                              copies, lot_copies)},
                      section::deployment,
                      true,
                      {}});
}

void Ranks::report(Report& r) const {
  std::int64_t any = 0;
  for (const State& s : layer_)
    any += s.assignments;
  if (any == 0 || sizes_.empty())
    return;
  Memo memo;
  by_size(r, memo);
  by_layer(r, memo);
  whole(r, memo);
  if (has_rank_)
    matrix(r);
}

}  // namespace

std::unique_ptr<Metric> make_ranks_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions&) {
  return std::make_unique<Ranks>(spec, trace);
}

}  // namespace moe
