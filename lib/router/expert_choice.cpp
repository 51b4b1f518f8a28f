// Expert choice (equations.md 2.7; paper 2202.09368): every expert takes the C tokens that want it
// most. Load is even by construction; a token may get no expert or all of them. What a token gets
// depends on later tokens: no use in decoding.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class ExpertChoice final : public OneScoreRouter {
 public:
  ExpertChoice(int experts, double factor, WeightRule rule)
      : OneScoreRouter(experts, experts, ScoreKind::softmax, rule), factor_(factor) {}
  RouterFacts facts() const override {
    RouterFacts f = OneScoreRouter::facts();
    f.norm_is_option = true;
    f.causal = f.causal_in_training = false;
    f.limits_load = true;
    return f;
  }
  std::vector<Detail> details(const RouterInput& in, const Routing& r) const override {
    const std::vector<Index> valid = valid_tokens(in);
    const Index room = capacity(valid);
    Matrix<double> tokens(experts_, room);
    Matrix<double> one(1, 1, double(room));
    for (int e = 0; e < experts_; ++e) {
      const auto taken = best_tokens(r, e, valid, room);
      std::ranges::transform(taken, tokens.row(e).begin(), [](Index t) { return double(t); });
    }
    return {{"expert_capacity", one}, {"expert_tokens", tokens}};
  }

 protected:
  void choose(const RouterInput& in, Routing& r) const override {
    const std::vector<Index> valid = valid_tokens(in);
    std::vector<std::vector<int>> chosen(std::size_t(r.tokens()));
    for (int e = 0; e < experts_; ++e) {
      for (const Index t : best_tokens(r, e, valid, capacity(valid)))
        chosen[t].push_back(e);
    }
    for (Index t = 0; t < r.tokens(); ++t) {
      auto& mine = chosen[t];
      std::ranges::stable_sort(mine, [&](int a, int b) { return r.logits(t, a) > r.logits(t, b); });
      std::ranges::copy(mine, r.expert.row(t).begin());
    }
  }

 private:
  static std::vector<Index> valid_tokens(const RouterInput& in) {
    std::vector<Index> valid;
    for (Index t = 0; t < in.tokens(); ++t) {
      if (in.batch.is_valid(t))
        valid.push_back(t);
    }
    return valid;
  }
  Index capacity(const std::vector<Index>& valid) const {
    const Index tokens = Index(valid.size());
    return std::min(
        tokens, std::max<Index>(1, Index(std::ceil(double(tokens) * factor_ / experts_ - 1e-9))));
  }
  // The `room` tokens of largest score with expert e, best first; equal scores: the earlier token.
  static std::vector<Index> best_tokens(const Routing& r, int e, const std::vector<Index>& valid,
                                        Index room) {
    std::vector<Index> tokens(valid);
    const auto better = [&](Index a, Index b) {
      return r.score(a, e) != r.score(b, e) ? r.score(a, e) > r.score(b, e) : a < b;
    };
    std::ranges::partial_sort(tokens, tokens.begin() + std::ptrdiff_t(room), better);
    tokens.resize(std::size_t(room));
    return tokens;
  }
  double factor_;
};

}  // namespace

std::unique_ptr<Router> make_expert_choice_router(Spec& spec, int experts) {
  const double factor = spec.get("factor", 2.0, 0.0);
  if (factor == 0) {
    throw Error(Exit::usage, "expert_choice: factor=0 gives every expert nothing")
        .hint("factor= is the mean number of experts a token has");
  }
  auto made = std::make_unique<ExpertChoice>(experts, factor, weight_rule(spec, false));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
