// Noisy top-k (equations.md 2.4; Shazeer et al. 2017, 1701.06538 eq. 3-5): in training the logits
// get normal noise whose size the router learns for each expert and token, and the choice and the
// weights are made on the noisy ones.
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/spec.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class Noisy final : public Router {
 public:
  Noisy(int experts, int k, double eps, double scale)
      : Router(experts), k_(k), eps_(eps), rule_{true, scale} {}

  RouterFacts facts() const override {
    return {.k = k_,
            .k_is_option = true,
            .normalised = true,
            .scale = rule_.scale,
            .learns_noise = true};
  }
  std::vector<Projection> projections() const override {
    return {{.name = "weight", .rows = experts_},
            {.name = "noise_weight", .rows = experts_, .tempered = false, .zero_init = true}};
  }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, k_, -1);
    r.weight = Matrix<double>(tokens, k_);
    r.logits = r.score = Matrix<double>(tokens, experts_);
    if (in.training)
      r.noise = r.sigma = Matrix<double>(tokens, experts_);
    for (Index t = 0; t < tokens; ++t) {
      if (in.training)
        draw(in, r, t);
      if (!in.batch.is_valid(t))
        continue;
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      std::vector<double> key(r.logits.row(t).begin(), r.logits.row(t).end());
      for (Index e = 0; e < experts_ && in.training; ++e)
        key[e] += r.noise(t, e) * r.sigma(t, e);
      softmax_row(key, r.score.row(t));
      best_of(key, r.expert.row(t));
      // = softmax over the chosen
      weights_of(r.score.row(t), r.expert.row(t), rule_, r.weight.row(t));
    }
    return r;
  }

  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight,
                const Matrix<double>& dprob, std::vector<Matrix<double>>& dscores) const override {
    std::vector<double> ds(static_cast<std::size_t>(experts_)), dkey(ds);
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t))
        continue;
      std::ranges::fill(ds, 0.0);
      std::ranges::fill(dkey, 0.0);
      if (!dweight.empty()) {
        weights_of_backward(r.score.row(t), r.expert.row(t), rule_, r.weight.row(t), dweight.row(t),
                            ds);
      }
      for (std::size_t e = 0; e < ds.size() && !dprob.empty(); ++e)
        ds[e] += dprob(t, Index(e));
      softmax_row_backward(r.score.row(t), ds, dkey);
      for (Index e = 0; e < experts_; ++e) {
        dscores[0](t, e) += dkey[e];
        if (!r.noise.empty()) {
          dscores[1](t, e) += r.noise(t, e) * dkey[e] / (1 + std::exp(-in.scores[1](t, e)));
        }
      }
    }
  }
  std::vector<Detail> details(const RouterInput&, const Routing& r) const override {
    if (r.noise.empty())
      return {};
    Matrix<double> noisy = r.logits;
    for (Index i = 0; i < noisy.size(); ++i)
      noisy.data()[i] += r.noise.data()[i] * r.sigma.data()[i];
    return {{"noisy_logits", noisy}, {"sigma", r.sigma}};
  }

 private:
  // Noise of token t and its size. Padding draws too, so that the draws of a token are at a fixed
  // place.
  void draw(const RouterInput& in, Routing& r, Index t) const {
    for (Index e = 0; e < experts_; ++e)
      r.noise(t, e) = in.noise_given() ? in.given->noise(t, e) : in.rng->normal();
    if (!in.batch.is_valid(t))
      return;
    for (Index e = 0; e < experts_; ++e) {
      const double q = in.scores[1](t, e);
      r.sigma(t, e) = std::fmax(q, 0.0) + std::log1p(std::exp(-std::abs(q))) + eps_;  // softplus
    }
  }
  int k_;
  double eps_;
  WeightRule rule_;
};

}  // namespace

std::unique_ptr<Router> make_noisy_router(Spec& spec, int experts) {
  const int k = spec.get("k", 2, 1);
  const double eps = spec.get("eps", 0.01, 0.0);
  auto made = std::make_unique<Noisy>(experts, k, eps, spec.get("scale", 1.0));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
