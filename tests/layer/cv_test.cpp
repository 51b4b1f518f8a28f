// The squared coefficient of variation behind the balancers `importance` and `load`:
// var / (mean^2 + 1e-10), whose epsilon decides where weights are tiny.
#include <catch2/catch.hpp>

#include "lib/balance/balancer.h"
#include "lib/core/rng.h"
#include "lib/router/input.h"

using namespace moe;

namespace {

// One token an expert, with these weights.
double importance_loss(const std::vector<double>& weights, Matrix<double>& dweight) {
  const auto n = Index(weights.size());
  Batch batch;
  batch.token.assign(weights.size(), 0);
  batch.start = {0, n};
  const Matrix<double> logits(n, n);
  const RouterInput in{.scores = {logits}, .batch = batch, .training = true};
  Routing routing;
  routing.expert = Matrix<int>(n, 1);
  routing.weight = Matrix<double>(n, 1);
  for (Index t = 0; t < n; ++t) {
    routing.expert(t, 0) = int(t);
    routing.weight(t, 0) = weights[std::size_t(t)];
  }
  Matrix<double> dprob(n, n);
  Matrix<double> dlogits(n, n);
  Matrix<double> dnoise;
  dweight = Matrix<double>(n, 1);
  return make_balancer("importance:coef=1")
      ->loss({in, routing, {}, int(n), {}, {}}, 1, {dprob, dlogits, dnoise, dweight});
}

}  // namespace

TEST_CASE("the importance loss is var / (mean^2 + 1e-10) and its gradient knows the epsilon") {
  Matrix<double> d;
  CHECK(importance_loss({3, 1}, d) == Approx(0.25).epsilon(1e-9));  // mean 2, variance 1
  // mean 1e-5, variance 1e-10: half of what it would be without the epsilon
  const std::vector<double> tiny{2e-5, 0};
  CHECK(importance_loss(tiny, d) == Approx(0.5).epsilon(1e-9));
  for (std::size_t e = 0; e < tiny.size(); ++e) {
    constexpr double h = 1e-9;
    std::vector<double> moved = tiny;
    Matrix<double> unused;
    moved[e] += h;
    const double up = importance_loss(moved, unused);
    moved[e] -= 2 * h;
    const double down = importance_loss(moved, unused);
    CHECK(d(Index(e), 0) == Approx((up - down) / (2 * h)).epsilon(1e-5));
  }
}
