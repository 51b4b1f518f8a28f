// The entropy loss (equations.md 6.5; 2403.07652 "dynamic loss"): mean over tokens of -sum p ln p
// with p = softmax(z). It sharpens the router, so that few experts reach the threshold of `top_p`.
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/spec.h"
#include "lib/router/modality_mask.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

class Entropy final : public Balancer {
 public:
  explicit Entropy(double coef) : Balancer("entropy"), coef_(coef) {}
  double coefficient() const override {
    return coef_;
  }
  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    const double tokens = double(in.valid_tokens());
    double sum = 0;
    std::vector<double> z(std::size_t(in.experts));
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch().is_valid(t))
        continue;
      with_bars(in.routing.logits.row(t), in.routing.bars_of(t), z);
      const double lse = log_sum_exp(z);
      double entropy = 0;  // by log-softmax: p = 0 gives 0, not NaN
      for (const double v : z)
        entropy -= std::isinf(v) ? 0 : std::exp(v - lse) * (v - lse);
      sum += entropy / tokens;
      for (std::size_t e = 0; e < z.size(); ++e) {
        if (std::isinf(z[e]))
          continue;  // the row may not choose it
        grad.dlogits(t, Index(e)) -=
            scale * coef_ / tokens * std::exp(z[e] - lse) * (z[e] - lse + entropy);
      }
    }
    return sum;
  }

 private:
  double coef_;
};

}  // namespace

std::unique_ptr<Balancer> make_entropy_balancer(Spec& spec) {
  return std::make_unique<Entropy>(spec.get("coef", 0.0001, 0.0));
}

}  // namespace moe
