// The dense mixture (equations.md 2.12; Jacobs et al. 1991): every expert computes every token, weighted by the softmax.
#include "lib/router/router.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

class Dense final : public Router {
 public:
  using Router::Router;
  int choices() const override { return experts_; }
  std::vector<Projection> projections() const override { return {{.name = "weight", .rows = experts_}}; }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r{Matrix<int>(tokens, experts_, -1), Matrix<double>(tokens, experts_), Matrix<double>(tokens, experts_), Matrix<double>(tokens, experts_), {}, {}};
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t)) continue;
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      softmax_row(r.logits.row(t), r.score.row(t));
      best_of(r.logits.row(t), r.expert.row(t));
      weights_of(r.score.row(t), r.expert.row(t), rule, r.weight.row(t));
    }
    return r;
  }
  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight, const Matrix<double>& dprob,
                std::vector<Matrix<double>>& dscores) const override {
    std::vector<double> ds(static_cast<std::size_t>(experts_));
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t)) continue;
      std::ranges::fill(ds, 0.0);
      if (!dweight.empty()) weights_of_backward(r.score.row(t), r.expert.row(t), rule, r.weight.row(t), dweight.row(t), ds);
      for (std::size_t e = 0; e < ds.size() && !dprob.empty(); ++e) ds[e] += dprob(t, Index(e));
      softmax_row_backward(r.score.row(t), ds, dscores[0].row(t));
    }
  }

 private:
  static constexpr WeightRule rule{false, 1};
};

}  // namespace

std::unique_ptr<Router> make_dense_router(Spec& spec, int experts) {
  auto made = std::make_unique<Dense>(experts);
  made->temperature = spec.get("temperature", 1.0, 1e-6);
  return made;
}

}  // namespace moe
