// Sinkhorn (equations.md 2.9; S-BASE 2202.01169, Megatron-LM): in training the choice is made on
// logits balanced over the whole batch by alternating normalisation, weights come from the plain
// scores. In evaluation it is a plain top-k, and causal.
#include <cmath>

#include "lib/core/spec.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

struct Plan {
  Matrix<double> value;  // (T,E) d1 exp(z) d0
  int rounds = 0;
};

// exp(z), rows of tokens that are not valid 0.
Matrix<double> exponentials(const RouterInput& in, const Matrix<double>& z) {
  Matrix<double> a(z.rows(), z.cols());
  for (Index t = 0; t < z.rows(); ++t) {
    if (!in.batch.is_valid(t))
      continue;
    for (Index e = 0; e < z.cols(); ++e)
      a(t, e) = std::exp(z(t, e));
  }
  return a;
}

// One round: d0 from d1, then d1 from d0. Returns the mean move of d1.
double normalise(const Matrix<double>& a, double valid, std::vector<double>& d0,
                 std::vector<double>& d1) {
  const Index experts = a.cols();
  std::vector<double> column(d1.size(), 0.0);
  for (Index t = 0; t < a.rows(); ++t) {
    double sum = 1e-8;
    for (Index e = 0; e < experts; ++e)
      sum += d1[e] * a(t, e);
    d0[t] = 1 / valid / sum;
    for (Index e = 0; e < experts; ++e)
      column[e] += d0[t] * a(t, e);
  }
  double moved = 0;
  for (std::size_t e = 0; e < d1.size(); ++e) {
    const double now = 1 / double(experts) / (column[e] + 1e-8);
    moved += std::abs(now - d1[e]) / double(experts);
    d1[e] = now;
  }
  return moved;
}

Plan balance(const RouterInput& in, const Matrix<double>& z) {
  const Matrix<double> a = exponentials(in, z);
  double valid = 0;
  for (Index t = 0; t < z.rows(); ++t)
    valid += in.batch.is_valid(t);
  std::vector<double> d0(std::size_t(a.rows()), 0.0);
  std::vector<double> d1(std::size_t(a.cols()), 1.0);
  Plan plan;
  for (double moved = 1; moved > 1e-4 && plan.rounds < 10000; ++plan.rounds)
    moved = normalise(a, valid, d0, d1);
  plan.value = Matrix<double>(a.rows(), a.cols());
  for (Index t = 0; t < a.rows(); ++t) {
    for (Index e = 0; e < a.cols(); ++e)
      plan.value(t, e) = d1[e] * a(t, e) * d0[t];
  }
  return plan;
}

class Sinkhorn final : public OneScoreRouter {
 public:
  Sinkhorn(int experts, int k, WeightRule rule)
      : OneScoreRouter(experts, k, k == 1 ? ScoreKind::sigmoid : ScoreKind::softmax, rule) {}
  RouterFacts facts() const override {
    RouterFacts f = OneScoreRouter::facts();
    f.k_is_option = true;
    f.norm_is_option = true;
    f.causal_in_training = false;
    return f;
  }
  std::vector<Detail> details(const RouterInput& in, const Routing& r) const override {
    if (!in.training)
      return {};
    const Plan plan = balance(in, r.logits);
    return {{"sinkhorn_plan", plan.value},
            {"sinkhorn_iterations", Matrix<double>(1, 1, plan.rounds)}};
  }

 protected:
  void choose(const RouterInput& in, Routing& r) const override {
    const Matrix<double> key = in.training ? balance(in, r.logits).value : r.logits;
    for (Index t = 0; t < r.tokens(); ++t) {
      if (in.batch.is_valid(t))
        best_of(key.row(t), r.expert.row(t));
    }
  }
};

}  // namespace

std::unique_ptr<Router> make_sinkhorn_router(Spec& spec, int experts) {
  const int k = spec.get("k", 1, 1);
  auto made = std::make_unique<Sinkhorn>(experts, k, weight_rule(spec, false));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
