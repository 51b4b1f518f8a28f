// Baselines that look at nothing (equations.md 2.16): `random` draws k distinct experts,
// `round_robin` takes them in turn. Weights are 1/k and there is nothing to learn: what a trained
// router must beat.
#include "lib/core/rng.h"
#include "lib/core/spec.h"
#include "lib/router/router.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

class Baseline : public Router {
 public:
  Baseline(int experts, int k) : Router(experts), k_(k) {}
  RouterFacts facts() const override {
    return {.k = k_, .k_is_option = true, .normalised = true};
  }
  std::vector<Projection> projections() const override {
    return {};
  }
  void backward(const RouterInput&, const Routing&, const Matrix<double>&, const Matrix<double>&,
                std::vector<Matrix<double>>&) const override {}

 protected:
  Routing nobody(Index tokens) const {
    return {Matrix<int>(tokens, k_, -1), Matrix<double>(tokens, k_), {}, {}, {}, {}};
  }
  int k_;
};

class Random final : public Baseline {
 public:
  using Baseline::Baseline;
  Routing route(const RouterInput& in) override {
    Routing r = nobody(in.tokens());
    std::vector<double> key(static_cast<std::size_t>(experts_));
    for (Index t = 0; t < in.tokens(); ++t) {
      for (std::size_t e = 0; e < key.size(); ++e)
        key[e] = in.noise_given() ? in.given->noise(t, Index(e)) : in.rng->uniform();
      if (!in.batch.is_valid(t))
        continue;
      best_of(key, r.expert.row(t));
      std::ranges::fill(r.weight.row(t), 1.0 / k_);
    }
    return r;
  }
};

class RoundRobin final : public Baseline {
 public:
  using Baseline::Baseline;
  Routing route(const RouterInput& in) override {
    Routing r = nobody(in.tokens());
    Index turn = 0;
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t))
        continue;
      for (Index j = 0; j < k_; ++j) {
        r.expert(t, j) = int(turn++ % experts_);
        r.weight(t, j) = 1.0 / k_;
      }
    }
    return r;
  }
};

}  // namespace

std::unique_ptr<Router> make_random_router(Spec& spec, int experts) {
  return std::make_unique<Random>(experts, spec.get("k", 2, 1));
}
std::unique_ptr<Router> make_round_robin_router(Spec& spec, int experts) {
  return std::make_unique<RoundRobin>(experts, spec.get("k", 2, 1));
}

}  // namespace moe
