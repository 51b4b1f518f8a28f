// The second pass over a trace: what plans do to the tokens that they were not made from. See
// place.h.
#include <bit>

#include "analysis/metric/bootstrap.h"
#include "analysis/metric/place.h"

namespace moe {
namespace {

enum Sum { tokens, planned_nodes, planned_copies, plain_nodes, plain_copies };

}  // namespace

PlaceJudge::PlaceJudge(const TraceSource& trace, const PlaceShape& place, std::vector<Layer> plans,
                       const AnalyzeOptions& o)
    : place_(place),
      halves_(trace),
      plans_(std::move(plans)),
      stream_(o.bootstrap_stream),
      has_rank_(trace.fields().rank),
      state_(plans_.size()) {
  // the judged half has half of the sequences
  if (o.bootstrap > 0 && trace.sequences().size() >= 2 * Bootstrap::least_sequences)
    width_ = std::size_t(o.bootstrap) + 1;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    State& s = state_[l];
    s.target = {place_targets(*plans_[l].planned, place_), place_targets(*plans_[l].plain, place_)};
    s.counts.assign(plans_[l].planned->copies.size() * width_, 0);
    s.pending.assign(plans_[l].planned->copies.size(), 0);
    for (auto& sum : s.sum)
      sum.assign(width_, 0);
    s.weight.assign(width_, 1);
    s.from.assign(std::size_t(place_.nodes), 0);
  }
}

TraceFields PlaceJudge::needs() const {
  TraceFields f = no_fields;
  f.rank = has_rank_;
  return f;
}

// A token of `node`, which counts as `share` of one.
void PlaceJudge::traffic(State& s, std::span<const int> experts, int node, double share) const {
  for (const std::size_t plan : {0, 1}) {
    std::uint64_t at = 0;
    int copies = 0;
    for (const int e : experts) {
      const int to = s.target[plan](node, e);
      at |= std::uint64_t{1} << to;
      copies += to != node;
    }
    at &= ~(std::uint64_t{1} << node);
    s.pending_sum[plan == 0 ? planned_nodes : plain_nodes] += share * std::popcount(at);
    s.pending_sum[plan == 0 ? planned_copies : plain_copies] += share * copies;
  }
  s.from[node] += share;
}

void PlaceJudge::token(State& s, const Window& w, Index layer, Index t) const {
  const std::span<const int> experts = w.layer[layer].of(t);
  for (const int e : experts) {
    if (s.pending[e]++ == 0)
      s.touched.push_back(e);
  }
  s.pending_sum[tokens] += 1;
  if (!w.rows.rank.empty()) {
    const int gpu = w.rows.rank[t] % place_.gpus;
    traffic(s, experts, place_.node_of(gpu), 1);
    return;
  }
  for (int node = 0; node < place_.nodes; ++node)
    traffic(s, experts, node, 1.0 / place_.nodes);
}

void PlaceJudge::observe_layer(const Window& w, Index layer) {
  State& s = state_[layer];
  for (const Index t : w.valid) {
    const std::uint32_t sequence = w.rows.sequence[t];
    if (halves_.of(sequence, w.rows.position[t]) != 1)
      continue;
    if (std::int64_t{sequence} != s.sequence) {
      close(s);
      s.sequence = sequence;
    }
    token(s, w, layer, t);
  }
}

// What was pending goes into every replica, as often as its sequence is in it.
void PlaceJudge::close(State& s) const {
  if (s.sequence >= 0 && width_ > 1)
    poisson_weights(stream_, std::uint64_t(s.sequence), s.weight);
  for (const int e : s.touched) {
    std::uint32_t* to = s.counts.data() + std::size_t(e) * width_;
    const auto n = std::uint32_t(s.pending[e]);
    for (std::size_t r = 0; r < width_; ++r)
      to[r] += n * s.weight[r];
    s.pending[e] = 0;
  }
  s.touched.clear();
  for (std::size_t i = 0; i < sums; ++i) {
    for (std::size_t r = 0; r < width_; ++r)
      s.sum[i][r] += s.pending_sum[i] * s.weight[r];
    s.pending_sum[i] = 0;
  }
}

void PlaceJudge::finish() {
  for (State& s : state_)
    close(s);
}

PlaceFigure PlaceJudge::ratio(const State& s, std::size_t over) const {
  PlaceFigure out;
  for (std::size_t r = 0; r < width_; ++r)
    out.push_back(s.sum[tokens][r] > 0 ? s.sum[over][r] / s.sum[tokens][r] : no_value);
  return out;
}

PlaceFigure PlaceJudge::balancedness(const State& s, const PlacePlan& plan) const {
  PlaceFigure out;
  std::vector<double> load(plan.copies.size());
  for (std::size_t r = 0; r < width_; ++r) {
    for (std::size_t e = 0; e < load.size(); ++e)
      load[e] = double(s.counts[e * width_ + r]);
    out.push_back(place_balancedness(plan, load, place_.gpus));
  }
  return out;
}

PlaceJudged PlaceJudge::planned(std::size_t layer) const {
  const State& s = state_[layer];
  return {balancedness(s, *plans_[layer].planned), ratio(s, planned_nodes),
          ratio(s, planned_copies)};
}

PlaceJudged PlaceJudge::plain(std::size_t layer) const {
  const State& s = state_[layer];
  return {balancedness(s, *plans_[layer].plain), ratio(s, plain_nodes), ratio(s, plain_copies)};
}

}  // namespace moe
