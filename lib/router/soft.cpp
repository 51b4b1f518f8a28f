// Soft MoE (equations.md 2.11; paper 2308.00951): nobody is chosen. Every expert has S slots; a
// slot takes a mixture of all tokens of the batch (softmax over tokens), a token's output is a
// mixture of all slots' outputs (softmax over slots). Load is even by construction and everything
// is differentiable; a token sees later ones, so it is not causal.
#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/mixing.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class Soft final : public Router, public Mixing {
 public:
  Soft(int experts, int slots, int traced, bool normalize)
      : Router(experts), slots_(slots), traced_(traced), normalize_(normalize) {}

  RouterFacts facts() const override {
    return {.k = traced_,
            .normalised = traced_ == experts_,
            .causal = false,
            .causal_in_training = false,
            .limits_load = true};
  }
  Index slots() const override {
    return Index(experts_) * slots_;
  }
  std::vector<Projection> projections() const override {
    return {{.name = "slots", .rows = slots(), .cosine = normalize_, .scale_name = "slot_scale"}};
  }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, traced_, -1);
    r.weight = Matrix<double>(tokens, traced_);
    r.score = Matrix<double>(tokens, experts_);
    r.logits = r.dispatch = r.mix = Matrix<double>(tokens, slots());
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t))
        continue;
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      softmax_row(r.logits.row(t), r.mix.row(t));
      for (Index n = 0; n < slots(); ++n)
        r.score(t, n / slots_) += r.mix(t, n);
      best_of(r.score.row(t), r.expert.row(t));
      for (Index j = 0; j < traced_; ++j)
        r.weight(t, j) = r.score(t, r.expert(t, j));
    }
    softmax_over_tokens(in, r);
    return r;
  }

  // A choosing router's gradient arrives by weights; here nothing does.
  void backward(const RouterInput&, const Routing&, const Matrix<double>&, const Matrix<double>&,
                std::vector<Matrix<double>>&) const override {}

  void mix_backward(const RouterInput& in, const Routing& r, const Matrix<double>& ddispatch,
                    const Matrix<double>& dmix,
                    std::vector<Matrix<double>>& dscores) const override {
    // sum over tokens of dispatch times its gradient
    std::vector<double> along(std::size_t(slots()), 0.0);
    for (Index t = 0; t < in.tokens(); ++t) {
      for (Index n = 0; n < slots(); ++n)
        along[n] += r.dispatch(t, n) * ddispatch(t, n);
    }
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t))
        continue;
      softmax_row_backward(r.mix.row(t), dmix.row(t), dscores[0].row(t));
      for (Index n = 0; n < slots(); ++n)
        dscores[0](t, n) += r.dispatch(t, n) * (ddispatch(t, n) - along[n]);
    }
  }
  std::vector<Detail> details(const RouterInput&, const Routing& r) const override {
    return {{"dispatch", r.dispatch}, {"combine", r.mix}};
  }

 private:
  void softmax_over_tokens(const RouterInput& in, Routing& r) const {
    for (Index n = 0; n < slots(); ++n) {
      double top = -std::numeric_limits<double>::infinity();
      double sum = 0;
      for (Index t = 0; t < in.tokens(); ++t) {
        if (in.batch.is_valid(t))
          top = std::max(top, r.logits(t, n));
      }
      for (Index t = 0; t < in.tokens(); ++t) {
        if (in.batch.is_valid(t))
          sum += r.dispatch(t, n) = std::exp(r.logits(t, n) - top);
      }
      for (Index t = 0; t < in.tokens() && sum > 0; ++t)
        r.dispatch(t, n) /= sum;
    }
  }
  int slots_, traced_;
  bool normalize_;
};

}  // namespace

std::unique_ptr<Router> make_soft_router(Spec& spec, int experts) {
  const int slots = spec.get("slots", 1, 1);
  const int traced = spec.get("k", std::min(experts, 8), 1);
  auto made = std::make_unique<Soft>(experts, slots, traced, spec.get("normalize", true));
  read_temperature(spec, *made);
  return made;
}

}  // namespace moe
