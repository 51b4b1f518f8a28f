#include "analysis/metric/ranks.h"

#include <bit>
#include <cmath>
#include <utility>

#include "analysis/metric/count_pass.h"
#include "lib/core/clones.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using State = RanksMetric::State;

constexpr double sglang_epsilon = 1e-5;

// Distinct ranks of a token at every size of the sweep, 2, 4, .. at_size.size() of them: an
// expert's rank at one size is half of that at twice the size, so the ranks of the largest are
// folded two and two.
MOE_SIMD void sweep(State& s, const Window& w, Index l) {
  const LayerChoices& choices = w.layer[l];
  std::int64_t sum[6] = {};
  const int sizes = int(s.at_size.size());
  for (const Index t : w.valid) {
    std::uint64_t seen = 0;
    for (const int e : choices.of(t))
      seen |= s.bit[e];
    constexpr std::uint64_t every[] = {~std::uint64_t{0},  0x5555555555555555, 0x1111111111111111,
                                       0x0101010101010101, 0x0001000100010001, 0x0000000100000001};
    for (int i = sizes - 1, fold = 0; i >= 0; --i, ++fold) {  // ranks stand 2^fold bits apart
      if (fold)
        seen = (seen | seen >> (1 << (fold - 1))) & every[fold];
      sum[i] += std::popcount(seen);
    }
  }
  for (int i = 0; i < sizes; ++i)
    s.at_size[i] += sum[i];
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

}  // namespace

RanksMetric::RanksMetric(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
    : shape_(trace),
      owners_(recorded_owners(trace, shape_)),
      ep_(spec.get("ep_size", owners_ > 1 ? owners_ : usual_ranks(shape_), 1)),
      nodes_(spec.get("num_nodes", ep_ % 2 ? 1 : 2, 1)),
      told_(ep_),
      threshold_(threshold_of("ep_balancedness", o.thresholds)),
      has_rank_(trace.fields().rank && !counts_only(trace)),
      counted_(counts_only(trace)),
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
  const auto divides = [this](int ranks) {
    return std::ranges::all_of(shape_.experts, [ranks](int e) { return e % ranks == 0; });
  };
  for (int r = 2; r <= 64 && !layer_.empty() && divides(r); r *= 2)
    sizes_.push_back(r);
  if (!spec.has("ep_size") && !sizes_.empty())
    told_ = std::max(2, ep_);
  for (std::size_t l = 0; l < layer_.size(); ++l)
    prepare(layer_[l], shape_.experts[l]);
}

TraceFields RanksMetric::needs() const {
  TraceFields f = no_fields;
  f.rank = has_rank_;
  f.dropped = f.kept = owners_ > 0;
  return f;
}

void RanksMetric::observe_layer(const Window& w, Index l) {
  State& s = layer_[l];
  const LayerChoices& choices = w.layer[l];
  const bool from = !w.rows.rank.empty();
  if (!sizes_.empty())
    sweep(s, w, l);
  for (std::size_t i = 0; i < w.valid.size();) {
    const std::uint32_t step = w.rows.step[w.valid[i]];
    if (step != s.step) {
      end_step(s);
      end_recorded_step(s.recorded);
      s.step = step;
    }
    const std::size_t first = i;
    while (i < w.valid.size() && w.rows.step[w.valid[i]] == step)
      ++i;
    if (!from && !s.rank_bit.empty()) {
      own_bits(s, choices, w.valid.data() + first, i - first);
      continue;
    }
    for (std::size_t j = first; j < i; ++j) {
      const Index t = w.valid[j];
      ++s.tokens;
      own(s, choices.of(t), source_of(w.rows, t));
      if (owners_ > 0)
        record(s, w.rows.layer[std::size_t(l)], t, int(w.rows.rank[std::size_t(t)]));
    }
  }
}

void RanksMetric::observe_counts(const CountWindow& w, Index l) {
  State& s = layer_[l];
  for (Index step = 0; step < w.count(); ++step) {
    const auto counts = w.of(step, l);
    for (std::size_t e = 0; e < counts.size(); ++e) {
      s.counts[e] += counts[e];
      s.assignments += counts[e];
    }
    add_tokens(s.tokens, w.tokens(step, l));
    end_step(s);
  }
}

void RanksMetric::prepare(State& s, int experts) const {
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
    s.rank_bit.push_back(std::uint64_t{1} << s.rank_of[e]);
    s.node_bit.push_back(std::uint64_t{1} << s.node_of[e]);
  }
  s.at_size.assign(sizes_.size(), 0);
  for (std::int64_t owner = 0; owner < owners_; ++owner) {
    for (auto e = experts * owner / owners_; e < experts * (owner + 1) / owners_; ++e)
      s.recorded.owner_of.push_back(int(owner));
  }
  if (has_rank_)
    s.tokens_to = s.copies_to = Matrix<std::int64_t>(ep_, ep_);
}

// everything at ep_size and num_nodes
void RanksMetric::own(State& s, std::span<const int> chosen, int source) const {
  const bool placed = source >= 0 && source < ep_;
  const int per_node = ep_ / nodes_;
  for (const int e : chosen) {
    const int r = s.rank_of[e];
    const int node = s.node_of[e];
    ++s.counts[e];
    const bool fresh = s.seen_rank[r] != s.tokens;
    if (fresh) {
      s.seen_rank[r] = s.tokens;
      ++s.ranks;
    }
    if (placed) {
      s.tokens_to(source, r) += fresh;
      ++s.copies_to(source, r);
    }
    if (s.seen_node[node] == s.tokens)
      continue;
    s.seen_node[node] = s.tokens;
    ++s.nodes;
    s.sends += placed && node != source / per_node;
  }
  s.assignments += std::int64_t(chosen.size());
  s.foreign += source >= ep_;
}

void RanksMetric::end_step(State& s) const {
  std::vector<std::int64_t> load(std::size_t(ep_), 0);
  std::int64_t all = 0;
  for (std::size_t e = 0; e < s.counts.size(); ++e) {
    load[s.rank_of[e]] += s.counts[e] - s.before[e];
    all += s.counts[e] - s.before[e];
  }
  const std::int64_t before = std::exchange(s.tokens_before, s.tokens);
  if (all == 0)
    return;
  s.imbalance +=
      double(*std::max_element(load.begin(), load.end())) * double(ep_) / double(all) - 1;
  s.sizes.add(s.tokens < 0 ? -1 : s.tokens - before);
  s.before = s.counts;
}

RanksMetric::Load RanksMetric::rank_load(std::span<const std::int64_t> counts, int ranks) {
  std::vector<std::int64_t> load(std::size_t(ranks), 0);
  std::int64_t all = 0;
  for (std::size_t e = 0; e < counts.size(); ++e) {
    load[e * std::size_t(ranks) / counts.size()] += counts[e];
    all += counts[e];
  }
  return {double(all) / ranks, double(*std::max_element(load.begin(), load.end()))};
}

double RanksMetric::balancedness(std::span<const std::int64_t> counts, int ranks) {
  const Load r = rank_load(counts, ranks);
  return r.mean / r.most;  // nothing at all: NaN
}

double RanksMetric::choices(const State& s) {
  return s.tokens < 0 ? no_value : double(s.assignments) / double(s.tokens);
}

chance::Value RanksMetric::chance_balancedness(Memo& memo, std::size_t l, int ranks,
                                               std::int64_t tokens, bool imbalance) const {
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

std::vector<MetricValue> RanksMetric::values() const {
  std::vector<double> imbalance, balanced;
  double means = 0;
  double mosts = 0;
  double smoothed = 0;
  for (State s : layer_) {
    end_step(s);
    const Load load = rank_load(s.counts, ep_);
    imbalance.push_back(s.imbalance / double(s.sizes.steps()));
    balanced.push_back(load.mean / load.most);
    means += load.mean;
    mosts += load.most;
    smoothed += (load.mean + sglang_epsilon) / (load.most + sglang_epsilon) / double(layer_.size());
  }
  std::vector<MetricValue> out{
      per_layer("ep_rank_imbalance", imbalance),
      per_layer("ep_balancedness", balanced),
      {"ep_balancedness_sum_ratio", {}, {means / mosts}},
      {"ep_balancedness_eps_mean", {}, {layer_.empty() ? no_value : smoothed}}};
  if (!counted_)
    sent_values(out);
  return out;
}

// What all-to-all sends.
void RanksMetric::sent_values(std::vector<MetricValue>& out) const {
  std::vector<double> ranks, dedup, nodes, sends;
  std::vector<Matrix<double>> tokens_to, copies_to;
  for (const State& s : layer_) {
    ranks.push_back(double(s.ranks) / double(s.tokens));
    dedup.push_back(double(s.ranks) / double(s.assignments));
    nodes.push_back(double(s.nodes) / double(s.tokens));
    sends.push_back(double(s.sends));
    if (has_rank_) {
      tokens_to.push_back(as_double(s.tokens_to));
      copies_to.push_back(as_double(s.copies_to));
    }
  }
  out.push_back(per_layer("a2a_distinct_ranks", ranks));
  out.push_back(per_layer("a2a_dedup_factor", dedup));
  out.push_back(per_layer("a2a_distinct_nodes", nodes));
  if (has_rank_) {
    out.push_back(per_layer("a2a_matrix", tokens_to));
    out.push_back(per_layer("a2a_matrix_copies", copies_to));
    out.push_back(per_layer("a2a_internode_sends", sends));
  }
}

std::unique_ptr<Metric> make_ranks_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions& o) {
  return std::make_unique<RanksMetric>(spec, trace, o);
}

}  // namespace moe
