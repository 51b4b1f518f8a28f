// The router z-loss (equations.md 6.3; ST-MoE 2202.08906): mean over tokens of (logsumexp z)^2.
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/spec.h"
#include "lib/router/modality_mask.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

class ZLoss final : public Balancer {
 public:
  explicit ZLoss(double coef) : Balancer("z"), coef_(coef) {}
  double coefficient() const override {
    return coef_;
  }
  bool by_sums() const override {
    return true;
  }
  SumFactors sum_factors(const SelectionCounts& c) const override {
    return {{}, c.tokens ? 1.0 / double(c.tokens) : 0};
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
      sum += lse * lse / tokens;
      for (std::size_t e = 0; e < z.size(); ++e)
        grad.dlogits(t, Index(e)) += scale * coef_ * 2 / tokens * lse * std::exp(z[e] - lse);
    }
    return sum;
  }

 private:
  double coef_;
};

}  // namespace

std::unique_ptr<Balancer> make_z_balancer(Spec& spec) {
  return std::make_unique<ZLoss>(spec.get("coef", 0.001, 0.0));
}

}  // namespace moe
