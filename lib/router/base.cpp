// BASE layers (equations.md 2.10; paper 2103.16716): in training tokens are dealt out so that every
// expert gets the same number and the sum of logits is largest; the weight is the sigmoid of the
// logit. In evaluation each token takes its best, causally.
#include "lib/router/assignment.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class Base final : public OneScoreRouter {
 public:
  explicit Base(int experts) : OneScoreRouter(experts, 1, ScoreKind::sigmoid, {false, 1}) {}
  RouterFacts facts() const override {
    RouterFacts f = OneScoreRouter::facts();
    f.causal_in_training = false;
    f.limits_load = true;
    return f;
  }
  std::vector<Detail> details(const RouterInput& in, const Routing& r) const override {
    if (!in.training)
      return {};
    Matrix<double> sum(1, 1);
    for (Index t = 0; t < r.tokens(); ++t) {
      if (r.expert(t, 0) >= 0)
        sum(0, 0) += r.logits(t, r.expert(t, 0));
    }
    return {{"assignment_value", sum}};
  }

 protected:
  void choose(const RouterInput& in, Routing& r) const override {
    std::vector<Index> valid;
    for (Index t = 0; t < r.tokens(); ++t) {
      if (in.batch.is_valid(t))
        valid.push_back(t);
    }
    if (!in.training) {
      for (const Index t : valid)
        best_of(r.logits.row(t), r.expert.row(t));
      return;
    }
    Matrix<double> value(Index(valid.size()), experts_);
    for (std::size_t i = 0; i < valid.size(); ++i)
      std::ranges::copy(r.logits.row(valid[i]), value.row(Index(i)).begin());
    const std::vector<int> of = balanced_assignment(std::as_const(value).view());
    for (std::size_t i = 0; i < valid.size(); ++i)
      r.expert(valid[i], 0) = of[i];
  }
};

}  // namespace

std::unique_ptr<Router> make_base_router(Spec& spec, int experts) {
  auto made = std::make_unique<Base>(experts);
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
