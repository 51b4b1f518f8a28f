// The CV^2 losses of noisy top-k (equations.md 6.4; 1701.06538 eq. 6-11): squared coefficient of
// variation over the experts of `importance`, the sum of an expert's weights, and of `load`, a
// smooth estimate of how many tokens choose it.
#include <algorithm>
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/router.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

// var(v) / (mean(v)^2 + 1e-10), population variance; its gradient into dv.
double cv_squared(std::span<const double> v, std::span<double> dv) {
  const double n = double(v.size());
  double mean = 0;
  double var = 0;
  for (const double x : v)
    mean += x / n;
  for (const double x : v)
    var += (x - mean) * (x - mean) / n;
  const double d = mean * mean + 1e-10;
  for (std::size_t i = 0; i < v.size(); ++i)
    dv[i] = 2 * (v[i] - mean) / (n * d) - 2 * var * mean / (n * d * d);
  return var / d;
}

class Importance final : public Balancer {
 public:
  explicit Importance(double coef) : Balancer("importance"), coef_(coef) {}
  double coefficient() const override {
    return coef_;
  }
  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    const Routing& r = in.routing;
    std::vector<double> sum(std::size_t(in.experts), 0.0);
    std::vector<double> dsum(sum);
    for (Index i = 0; i < r.expert.size(); ++i) {
      if (const int e = r.expert.data()[i]; e >= 0)
        sum[e] += r.weight.data()[i];
    }
    const double value = cv_squared(sum, dsum);
    for (Index i = 0; i < r.expert.size(); ++i) {
      if (const int e = r.expert.data()[i]; e >= 0)
        grad.dweight.data()[i] += scale * coef_ * dsum[e];
    }
    return value;
  }

 private:
  double coef_;
};

double cdf(double x) {
  return 0.5 * std::erfc(-x * 0.70710678118654752440);
}
double pdf(double x) {
  return 0.39894228040143267794 * std::exp(-x * x / 2);
}

// term(t, e, a = (z - theta)/sigma, m = the expert whose noisy logit is theta), every valid token
// and expert.
template <class Term>
void for_terms(const Routing& r, const Batch& batch, Term term) {
  const Index experts = r.logits.cols();
  const bool all = r.choices() == experts;
  std::vector<double> noisy(static_cast<std::size_t>(experts));
  std::vector<int> best(std::size_t(r.choices()) + (all ? 0 : 1));
  for (Index t = 0; t < r.tokens(); ++t) {
    if (!batch.is_valid(t))
      continue;
    for (Index e = 0; e < experts; ++e)
      noisy[e] = r.logits(t, e) + r.noise(t, e) * r.sigma(t, e);
    best_of(noisy, best);
    for (Index e = 0; e < experts; ++e) {
      if (all) {  // every expert is chosen for certain
        term(t, e, std::numeric_limits<double>::infinity(), 0);
        continue;
      }
      const bool chosen = std::ranges::find(r.expert.row(t), int(e)) != r.expert.row(t).end();
      const int m = best[std::size_t(r.choices()) - (chosen ? 0 : 1)];
      term(t, e, (r.logits(t, e) - noisy[m]) / r.sigma(t, e), m);
    }
  }
}

class Load final : public Balancer {
 public:
  explicit Load(double coef) : Balancer("load"), coef_(coef) {}
  double coefficient() const override {
    return coef_;
  }
  void check(const Router& router) const override {
    if (!router.facts().learns_noise) {
      throw Error(Exit::usage, "the balancer 'load' needs a router that learns its noise")
          .hint("--router noisy:k=2");
    }
  }
  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    const Routing& r = in.routing;
    // evaluation draws no noise, and without noise there is no smooth load
    if (r.noise.empty())
      return 0;
    const std::vector<double> load = smooth_load(r, in.batch());
    std::vector<double> dload(load.size());
    const double value = cv_squared(load, dload);
    if (r.choices() == in.experts)
      return value;  // load is T, whatever the logits
    for_terms(r, in.batch(), [&](Index t, Index e, double a, int m) {
      const double slope = scale * coef_ * dload[e] * pdf(a) / r.sigma(t, e);
      const auto to_noise = [&](Index expert, double dsigma) {  // sigma = softplus(q) + eps
        grad.dnoise(t, expert) += dsigma / (1 + std::exp(-in.router.scores[1](t, expert)));
      };
      grad.dlogits(t, e) += slope;
      to_noise(e, -slope * a);
      grad.dlogits(t, m) -= slope;  // the threshold is itself a noisy logit
      to_noise(m, -slope * r.noise(t, m));
    });
    return value;
  }

 private:
  double coef_;
};

}  // namespace

std::vector<double> smooth_load(const Routing& r, const Batch& batch) {
  std::vector<double> load(std::size_t(r.logits.cols()), 0.0);
  for_terms(r, batch, [&](Index, Index e, double a, int) { load[e] += cdf(a); });
  return load;
}

std::unique_ptr<Balancer> make_importance_balancer(Spec& spec) {
  return std::make_unique<Importance>(spec.get("coef", 0.1, 0.0));
}
std::unique_ptr<Balancer> make_load_balancer(Spec& spec) {
  return std::make_unique<Load>(spec.get("coef", 0.1, 0.0));
}

}  // namespace moe
