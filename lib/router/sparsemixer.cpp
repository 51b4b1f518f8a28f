// The sparse mixer of Phi-3.5-MoE (2409.12136) without its draws: first the largest logit, then the
// largest without it; the weight of each is its share of a softmax over those logits that come near
// the largest, (max - z) / max(|z|, max) <= 2 eps. The two weights need not sum to 1. Gradients are
// those of the two softmaxes, with the sets that stay held fixed.
#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/router.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

class SparseMixer final : public Router {
 public:
  SparseMixer(int experts, double eps) : Router(experts), eps_(eps) {}

  RouterFacts facts() const override {
    return {.k = 2};
  }
  std::vector<Projection> projections() const override {
    return {{.name = "weight", .rows = experts_}};
  }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, 2, -1);
    r.weight = Matrix<double>(tokens, 2);
    r.logits = Matrix<double>(tokens, experts_);
    r.score = Matrix<double>(tokens, experts_);
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t))
        continue;
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      softmax_row(r.logits.row(t), r.score.row(t));
      best_of(r.logits.row(t), r.expert.row(t));
      for (int j = 0; j < 2; ++j) {
        if (r.expert(t, j) >= 0)
          r.weight(t, j) = shares(r.logits.row(t), r.expert.row(t), j)[r.expert(t, j)];
      }
    }
    return r;
  }

  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight,
                const Matrix<double>& dprob, std::vector<Matrix<double>>& dscores) const override {
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t))
        continue;
      for (int j = 0; j < 2 && !dweight.empty(); ++j) {
        if (r.expert(t, j) < 0)
          continue;
        std::vector<double> d(std::size_t(experts_), 0.0);
        d[r.expert(t, j)] = dweight(t, j);
        softmax_row_backward(shares(r.logits.row(t), r.expert.row(t), j), d, dscores[0].row(t));
      }
      if (!dprob.empty())
        softmax_row_backward(r.score.row(t), dprob.row(t), dscores[0].row(t));
    }
  }

 private:
  // The softmax that choice j is read from, 0 for logits that are left out.
  std::vector<double> shares(std::span<const double> z, std::span<const int> chosen, int j) const {
    const double top = z[chosen[j]];
    std::vector<double> p(z.size(), 0.0);
    double sum = 0;
    for (std::size_t e = 0; e < z.size(); ++e) {
      const bool taken = j == 1 && int(e) == chosen[0];
      if (taken || (top - z[e]) / std::max(std::abs(z[e]), top) > 2 * eps_)
        continue;
      sum += p[e] = std::exp(z[e] - top);
    }
    for (double& v : p)
      v /= sum;
    return p;
  }

  double eps_;
};

}  // namespace

std::unique_ptr<Router> make_sparsemixer_router(Spec& spec, int experts) {
  if (experts < 2)
    throw Error(Exit::usage, concat("sparsemixer chooses 2 experts and there is ", experts));
  return std::make_unique<SparseMixer>(experts, spec.get("eps", 0.01, 0.0));
}

}  // namespace moe
