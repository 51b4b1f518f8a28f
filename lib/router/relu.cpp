// ReLU routing (equations.md 2.14; ReMoE 2412.14711): every expert with a positive logit is chosen,
// and the logit is its weight; differentiable throughout. A token may choose none. The balancer
// `l1` drives how many are positive.
#include <algorithm>

#include "lib/router/one_score.h"

namespace moe {
namespace {

class Relu final : public Router {
 public:
  using Router::Router;
  RouterFacts facts() const override {
    return {.k = experts_};
  }
  std::vector<Projection> projections() const override {
    return {{.name = "weight", .rows = experts_}};
  }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, experts_, -1);
    r.weight = Matrix<double>(tokens, experts_);
    r.logits = r.score = Matrix<double>(tokens, experts_);
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t))
        continue;
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      std::ranges::transform(r.logits.row(t), r.score.row(t).begin(),
                             [](double z) { return z > 0 ? z : 0; });
      best_of(r.logits.row(t), r.expert.row(t));
      for (Index j = 0; j < experts_; ++j) {
        int& e = r.expert(t, j);
        if (!(r.logits(t, e) > 0))
          e = -1;
        else
          r.weight(t, j) = r.score(t, e);
      }
    }
    return r;
  }
  Matrix<double> probabilities(const RouterInput&, const Routing& r) const override {
    return normalized_rows(r.score);
  }
  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight,
                const Matrix<double>& dprob, std::vector<Matrix<double>>& dscores) const override {
    std::vector<double> ds(static_cast<std::size_t>(experts_));
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t))
        continue;
      std::ranges::fill(ds, 0.0);
      for (Index j = 0; j < r.choices() && !dweight.empty(); ++j) {
        if (r.expert(t, j) >= 0)
          ds[r.expert(t, j)] += dweight(t, j);
      }
      if (!dprob.empty() && r.expert(t, 0) >= 0)
        normalized_row_backward(r.score.row(t), dprob.row(t), ds);
      for (Index e = 0; e < experts_; ++e) {
        if (r.logits(t, e) > 0)
          dscores[0](t, e) += ds[e];
      }
    }
  }
};

}  // namespace

std::unique_ptr<Router> make_relu_router(Spec& spec, int experts) {
  auto made = std::make_unique<Relu>(experts);
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
