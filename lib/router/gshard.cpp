// GShard (equations.md 2.5, paper 2006.16668 algorithm 1): the two best of a softmax share their
// sum; the second one is kept with probability min(1, 2 w2). Its removal comes before capacity and
// takes no slot.
#include "lib/core/rng.h"
#include "lib/core/spec.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class GShard final : public OneScoreRouter {
 public:
  GShard(int experts, bool random, double scale)
      : OneScoreRouter(experts, 2, ScoreKind::softmax, {true, scale}),
        random_(random),
        scale_(scale) {}
  RouterFacts facts() const override {
    RouterFacts f = OneScoreRouter::facts();
    f.score = ScoreFunction::softmax;
    f.may_drop = true;  // with second=all too: traces of both kinds hold the same fields
    return f;
  }

  Routing route(const RouterInput& in) override {
    Routing r = OneScoreRouter::route(in);
    if (random_ && (in.training || in.noise_given()))
      thin_out(in, r);
    return r;
  }

 protected:
  void choose(const RouterInput& in, Routing& r) const override {
    for (Index t = 0; t < r.tokens(); ++t) {
      if (in.batch.is_valid(t))
        best_of(r.logits.row(t), r.expert.row(t));
    }
  }

 private:
  // Keeps slot 1 where 2 w2 / scale > U_t.
  void thin_out(const RouterInput& in, Routing& r) const {
    r.kept = r.expert;
    r.combine = r.weight;
    for (Index t = 0; t < in.tokens(); ++t) {
      const double u = in.noise_given() ? in.given->noise(t, 0) : in.rng->uniform();
      if (r.expert(t, 1) >= 0 && 2 * r.weight(t, 1) / scale_ > u)
        continue;
      r.kept(t, 1) = -1;
      r.combine(t, 1) = 0;
    }
  }
  bool random_;
  double scale_;
};

}  // namespace

std::unique_ptr<Router> make_gshard_router(Spec& spec, int experts) {
  const bool random = spec.choice("second", {"random", "all"}) == "random";
  auto made = std::make_unique<GShard>(experts, random, spec.get("scale", 1.0));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
