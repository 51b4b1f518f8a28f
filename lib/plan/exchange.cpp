// Expected copies, rows and times of an exchange.
#include "lib/plan/exchange.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <vector>

#include "lib/core/rng.h"

namespace moe::plan {
namespace {

constexpr int drawn_tokens = 4096;
constexpr std::uint64_t seed = 1;

// Parts of equal size, of `experts` in all, that hold at least one of k distinct ones.
double parts_touched(double experts, double k, double parts) {
  const double own = experts / parts;
  double none = 1;
  for (double i = 0; i < k; ++i)
    none *= std::max(0.0, experts - own - i) / (experts - i);
  return parts * (1 - none);
}

struct Drawn {
  double devices = 0, nodes = 0;
};

// One token: the limit best groups by their best score, and of these the k best experts.
class LimitedToken {
 public:
  explicit LimitedToken(const ExchangeShape& s)
      : s_(s),
        nodes_(s.ranks / s.gpus),
        score_(std::size_t(s.experts)),
        best_(std::size_t(nodes_)),
        order_(std::size_t(s.experts)),
        group_(std::size_t(nodes_)) {}

  Drawn draw(Rng& rng) {
    std::ranges::fill(best_, 0.0);
    for (Count e = 0; e < s_.experts; ++e) {
      score_[std::size_t(e)] = rng.uniform();
      double& best = best_[std::size_t(node_of(e))];
      best = std::max(best, score_[std::size_t(e)]);
    }
    for (std::size_t g = 0; g < group_.size(); ++g)
      group_[g] = Count(g);
    std::ranges::sort(
        group_, [&](Count a, Count b) { return best_[std::size_t(a)] > best_[std::size_t(b)]; });
    group_.resize(std::size_t(s_.limit_nodes));
    order_.clear();
    for (Count e = 0; e < s_.experts; ++e) {
      if (std::ranges::find(group_, node_of(e)) != group_.end())
        order_.push_back(e);
    }
    group_.resize(std::size_t(nodes_));
    return touched();
  }

 private:
  Count node_of(Count expert) const {
    return expert * nodes_ / s_.experts;
  }
  Drawn touched() {
    const auto k = std::min(std::ptrdiff_t(s_.k), std::ssize(order_));
    std::ranges::partial_sort(order_, order_.begin() + k, [&](Count a, Count b) {
      return score_[std::size_t(a)] > score_[std::size_t(b)];
    });
    std::vector<char> device(std::size_t(s_.ranks), 0);
    std::vector<char> node(std::size_t(nodes_), 0);
    for (std::ptrdiff_t i = 0; i < k; ++i) {
      device[std::size_t(order_[std::size_t(i)] * s_.ranks / s_.experts)] = 1;
      node[std::size_t(node_of(order_[std::size_t(i)]))] = 1;
    }
    return {double(std::ranges::count(device, 1)), double(std::ranges::count(node, 1))};
  }

  ExchangeShape s_;
  Count nodes_;
  std::vector<double> score_, best_;
  std::vector<Count> order_, group_;
};

// Mean over tokens; drawn once for each shape, since a search asks for the same ones again.
Drawn mean_drawn(const ExchangeShape& s) {
  using Key = std::array<Count, 5>;
  static std::mutex guard;
  static std::map<Key, Drawn> known;
  const std::lock_guard lock(guard);
  const Key key{s.experts, s.k, s.ranks, s.gpus, s.limit_nodes};
  if (const auto at = known.find(key); at != known.end())
    return at->second;
  LimitedToken token(s);
  Rng rng(seed);
  Drawn mean;
  for (int t = 0; t < drawn_tokens; ++t) {
    const Drawn d = token.draw(rng);
    mean.devices += d.devices / drawn_tokens;
    mean.nodes += d.nodes / drawn_tokens;
  }
  known.emplace(key, mean);
  return mean;
}

}  // namespace

Copies expected_copies(const ExchangeShape& s) {
  const Count gpus = std::min(s.gpus, s.ranks);
  const double nodes = double(s.ranks) / double(gpus);
  Copies out;
  if (s.limit_nodes > 0 && double(s.limit_nodes) < nodes) {
    ExchangeShape whole = s;
    whole.gpus = gpus;
    const Drawn mean = mean_drawn(whole);
    out.devices = mean.devices;
    out.nodes = mean.nodes;
  } else {
    out.devices = parts_touched(double(s.experts), double(s.k), double(s.ranks));
    out.nodes = parts_touched(double(s.experts), double(s.k), nodes);
  }
  out.remote_nodes = out.nodes * (nodes - 1) / nodes;
  return out;
}

Rows rows_sent(const ExchangeShape& s, Dispatch dispatch) {
  if (s.ranks <= 1)
    return {};
  const Count gpus = std::min(s.gpus, s.ranks);
  const double nodes = double(s.ranks) / double(gpus);
  const double away = 1 - 1 / nodes;  // share of experts on other nodes
  const Copies c = expected_copies(s);
  const double near = 1 / nodes - 1 / double(s.ranks);  // on other devices of the own node
  switch (dispatch) {
    case Dispatch::flat:
      return {double(s.k) * near, double(s.k) * away};
    case Dispatch::device:
      return {c.devices * near, c.devices * away};
    case Dispatch::node:
      break;
  }
  // what came over the network goes on over the links, to every device but the one it came to
  return {c.devices * (1 - 1 / double(gpus)), c.remote_nodes};
}

double exchange_seconds(const ExchangeShape& s, Dispatch dispatch, const ExchangeRates& rates,
                        double tokens, double row) {
  const Rows rows = rows_sent(s, dispatch);
  const double link = rows.link > 0 ? rows.link / rates.link : 0;
  const double net = rows.net > 0 ? rows.net / rates.net : 0;
  return std::max(link, net) * tokens * row;
}

}  // namespace moe::plan
