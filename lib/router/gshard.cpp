// GShard (equations.md 2.5, paper 2006.16668 algorithm 1): the two best of a softmax share their sum; the second one is kept
// with probability min(1, 2 w2). Its removal comes before capacity and takes no slot.
#include "lib/core/error.h"
#include "lib/router/router.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

class GShard final : public Router {
 public:
  GShard(int experts, bool random, double scale) : Router(experts), random_(random), rule_{true, scale} {}

  int choices() const override { return 2; }
  std::vector<Projection> projections() const override { return {{.name = "weight", .rows = experts_}}; }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r{Matrix<int>(tokens, 2, -1), Matrix<double>(tokens, 2), Matrix<double>(tokens, experts_), Matrix<double>(tokens, experts_), {}, {}};
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t)) continue;
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      softmax_row(r.logits.row(t), r.score.row(t));
      best_of(r.logits.row(t), r.expert.row(t));
      weights_of(r.score.row(t), r.expert.row(t), rule_, r.weight.row(t));
    }
    if (random_ && (in.training || in.noise_given())) thin_out(in, r);
    return r;
  }
  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight, const Matrix<double>& dprob,
                std::vector<Matrix<double>>& dscores) const override {
    std::vector<double> ds(static_cast<std::size_t>(experts_));
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t)) continue;
      std::ranges::fill(ds, 0.0);
      if (!dweight.empty()) weights_of_backward(r.score.row(t), r.expert.row(t), rule_, r.weight.row(t), dweight.row(t), ds);
      for (std::size_t e = 0; e < ds.size() && !dprob.empty(); ++e) ds[e] += dprob(t, Index(e));
      softmax_row_backward(r.score.row(t), ds, dscores[0].row(t));
    }
  }

 private:
  // Keeps slot 1 where 2 w2 / scale > U_t.
  void thin_out(const RouterInput& in, Routing& r) const {
    r.kept = r.expert;
    r.combine = r.weight;
    for (Index t = 0; t < in.tokens(); ++t) {
      const double u = in.noise_given() ? in.given->noise(t, 0) : in.rng->uniform();
      if (r.expert(t, 1) >= 0 && 2 * r.weight(t, 1) / rule_.scale > u) continue;
      r.kept(t, 1) = -1;
      r.combine(t, 1) = 0;
    }
  }
  bool random_;
  WeightRule rule_;
};

}  // namespace

std::unique_ptr<Router> make_gshard_router(Spec& spec, int experts) {
  const bool random = spec.choice("second", {"random", "all"}) == "random";
  auto made = std::make_unique<GShard>(experts, random, spec.get("scale", 1.0));
  made->temperature = spec.get("temperature", 1.0, 1e-6);
  return made;
}

}  // namespace moe
