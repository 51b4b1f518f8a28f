// What routers with one logit an expert and one score made of it have in common: scores, weights by
// equations.md section 1, and their backward. Such a router says only who is chosen, for the whole
// batch at once, so that tokens may compete.
#pragma once
#include "lib/router/router.h"
#include "lib/router/scores.h"

namespace moe {

enum class ScoreKind { softmax, sigmoid };

class OneScoreRouter : public Router {
 public:
  OneScoreRouter(int experts, int choices, ScoreKind kind, WeightRule rule)
      : Router(experts), choices_(choices), kind_(kind), rule_(rule) {}

  RouterFacts facts() const override {
    return {.k = choices_, .normalised = rule_.norm, .scale = rule_.scale, .takes_routes = true};
  }
  std::vector<Projection> projections() const override {
    return {{.name = "weight", .rows = experts_}};
  }
  Routing route(const RouterInput&) override;
  Matrix<double> probabilities(const RouterInput&, const Routing&) const override;
  void backward(const RouterInput&, const Routing&, const Matrix<double>& dweight,
                const Matrix<double>& dprob, std::vector<Matrix<double>>& dscores) const override;

 protected:
  // Fills r.expert from r.logits and r.score; rows of tokens that are not valid stay -1.
  virtual void choose(const RouterInput&, Routing& r) const = 0;

 private:
  int choices_;
  ScoreKind kind_;
  WeightRule rule_;
};

// Options that such routers share.
WeightRule weight_rule(Spec&, bool norm);          // norm=, scale=
void read_temperature(Spec&, Router&);             // temperature=, as a constant or from..to
void read_temperature_and_jitter(Spec&, Router&);  // temperature=, jitter=

}  // namespace moe
