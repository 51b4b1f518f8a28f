// The dense mixture (equations.md 2.12; Jacobs et al. 1991): every expert computes every token,
// weighted by the softmax.
#include "lib/router/one_score.h"

namespace moe {
namespace {

class Dense final : public OneScoreRouter {
 public:
  explicit Dense(int experts) : OneScoreRouter(experts, experts, ScoreKind::softmax, {false, 1}) {}
  RouterFacts facts() const override {
    RouterFacts f = OneScoreRouter::facts();
    f.score = ScoreFunction::softmax;
    f.normalised = true;  // the probabilities of all experts
    return f;
  }

 protected:
  void choose(const RouterInput& in, Routing& r) const override {
    for (Index t = 0; t < r.tokens(); ++t) {
      if (in.batch.is_valid(t))
        best_of(r.logits.row(t), r.expert.row(t));
    }
  }
};

}  // namespace

std::unique_ptr<Router> make_dense_router(Spec& spec, int experts) {
  auto made = std::make_unique<Dense>(experts);
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
