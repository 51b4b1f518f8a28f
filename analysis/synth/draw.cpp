#include "analysis/synth/draw.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/shuffle.h"

namespace moe {

Deck::Deck(int first, int count) : ids_(std::size_t(count)) {
  std::iota(ids_.begin(), ids_.end(), first);
}

void Deck::deal(Rng& rng, std::span<int> out) {
  for (std::size_t j = 0; j < out.size(); ++j) {
    draw_to(ids_, j, rng);
    out[j] = ids_[j];
  }
}

Weighted::Weighted(std::vector<double> share, int k) : share_(std::move(share)) {
  for (const double s : share_)
    chance_.push_back(s * k);
}

// The experts, in a random order, laid end to end as stretches of length share*K: those that lie
// under u, u+1, ..., u+K-1. Only as much of the order is drawn as is passed. Where rounding at the
// ends leaves too few, those not reached fill the rest.
void Weighted::deal(Rng& rng, std::span<int> out) const {
  thread_local std::vector<int> order;
  order.resize(chance_.size());
  std::iota(order.begin(), order.end(), 0);
  const double u = rng.uniform();
  double end = 0;
  std::size_t taken = 0;
  std::size_t at = 0;
  for (; at < order.size() && taken < out.size(); ++at) {
    draw_to(order, at, rng);
    end += chance_[order[at]];
    const bool needed = order.size() - at == out.size() - taken;
    if (end > u + double(taken) || needed)
      out[taken++] = order[at];
  }
  shuffle(out, rng);
}

std::vector<double> hot_shares(int experts, int first, int count, double share) {
  std::vector<double> out(std::size_t(experts),
                          count < experts ? (1 - share) / (experts - count) : 0);
  for (int i = 0; i < count; ++i)
    out[(first + i) % experts] = share / count;
  return out;
}

std::vector<double> capped(std::vector<double> w, int k) {
  const double most = 1.0 / k;
  std::vector<bool> full(w.size(), false);
  for (bool again = true; again;) {
    double left = 1;
    double sum = 0;
    for (std::size_t e = 0; e < w.size(); ++e)
      full[e] ? left -= most : sum += w[e];
    again = false;
    for (std::size_t e = 0; e < w.size(); ++e) {
      if (full[e])
        continue;
      w[e] *= left / sum;
      if (w[e] > most) {
        w[e] = most;
        full[e] = again = true;
      }
    }
  }
  return w;
}

double even_noise(const SynthShape& s) {
  return std::sqrt((1.0 / s.experts) * (1 - double(s.k) / s.experts) / (double(s.tokens) * s.k));
}

Known known_rate(std::string id, std::vector<Index> at, double p, double n) {
  return {std::move(id), std::move(at), p, std::sqrt(std::max(0.0, p * (1 - p)) / n)};
}

double common(double experts, double k) {
  double none = 1;
  for (int j = 0; j < int(k); ++j)
    none *= std::max(0.0, (experts - k - j) / (experts - j));
  return 1 - none;
}

namespace {

struct Moments {
  double square = 0, entropy = 0, gini = 0, dead = 0;
};
Moments moments(const std::vector<double>& falling) {
  const double e = double(falling.size());
  Moments out;
  for (std::size_t i = 0; i < falling.size(); ++i) {
    const double q = falling[i];
    out.square += q * q;
    out.dead += q == 0;
    if (q > 0)
      out.entropy -= q * std::log(q);
    out.gini += (e - 1 - 2 * double(i)) * q / e;
  }
  return out;
}

// Shares of the busiest experts, q falling, and of the first, the middle and the last expert.
void add_shares(const std::vector<double>& q, const std::vector<double>& share, double n,
                std::vector<Known>& out) {
  const double one = std::sqrt(q[0] / n);
  Index i = 0;
  for (const int top : {1, 2, 4}) {
    const double sum = std::accumulate(q.begin(), q.begin() + std::min(top, int(q.size())), 0.0);
    out.push_back({"load_topn_coverage", {i++}, sum, 2 * top * one});
  }
  for (const std::size_t x : {std::size_t{0}, share.size() / 2, share.size() - 1})
    out.push_back({"load_fraction", {Index(x)}, share[x], std::sqrt(share[x] / n)});
}

}  // namespace

std::vector<Known> known_load(const std::vector<double>& share, const SynthShape& s) {
  const double n = double(s.tokens) * s.k;
  const double e = double(share.size());
  std::vector<double> q = share;
  std::sort(q.begin(), q.end(), std::greater<>());
  const Moments of = moments(q);
  const double cv = std::sqrt(std::max(0.0, e * of.square - 1));
  const double one = std::sqrt(q[0] / n);
  const double bias = e / n;
  std::vector<Known> out{{"load_cv", {}, cv, std::sqrt(e) * one + bias / std::max(cv, 0.01)},
                         {"load_jain", {}, 1 / (1 + cv * cv), 2 * std::sqrt(e) * one + bias},
                         {"load_entropy", {}, of.entropy, std::log(e) * std::sqrt(e) * one + bias},
                         {"load_gini", {}, of.gini, e * one + bias},
                         {"load_max_over_mean", {}, q[0] * e, 2 * e * one},
                         {"load_dead_fraction", {}, of.dead / e, 0}};
  add_shares(q, share, n, out);
  return out;
}

}  // namespace moe
