// Top-p (equations.md 2.6; paper 2403.07652): a token takes its most probable experts until their
// mass reaches p, so easy tokens take few. `k` caps how many (0 = all).
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class TopP final : public OneScoreRouter {
 public:
  TopP(int experts, int cap, double p, WeightRule rule)
      : OneScoreRouter(experts, cap ? cap : experts, ScoreKind::softmax, rule), p_(p) {}
  RouterFacts facts() const override {
    RouterFacts f = OneScoreRouter::facts();
    f.norm_is_option = true;
    return f;
  }

 protected:
  void choose(const RouterInput& in, Routing& r) const override {
    for (Index t = 0; t < r.tokens(); ++t) {
      if (!in.batch.is_valid(t))
        continue;
      const auto ids = r.expert.row(t);
      best_of(r.logits.row(t), ids);
      double mass = 0;
      for (int& e : ids) {
        // p = 1 takes every expert, whatever rounding says of the sum
        if (mass >= p_ && p_ < 1)
          e = -1;
        else if (e >= 0)
          mass += r.score(t, e);
      }
    }
  }

 private:
  double p_;
};

}  // namespace

std::unique_ptr<Router> make_top_p_router(Spec& spec, int experts) {
  const double p = spec.get("p", 0.4, 0.0);
  if (p == 0 || p > 1)
    throw Error(Exit::usage, concat("top_p: p=", p, " is not above 0 and at most 1"));
  const int cap = spec.get("k", 0, 0);
  auto made = std::make_unique<TopP>(experts, cap, p, weight_rule(spec, false));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
