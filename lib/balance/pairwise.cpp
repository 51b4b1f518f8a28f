// The balance loss that popular articles print: E^2 times the mean over pairs of experts (i, j) of
// P_i (P_j + f_j), P the mean probability and f the share of choices. It balances nothing: the sum
// over pairs is (sum P) (sum P + sum f) = 2 whatever the routing, and its gradient, the same for
// every expert, is taken out by the softmax. It is here so that this can be seen and measured.
#include <numeric>

#include "lib/balance/balancer.h"
#include "lib/core/spec.h"

namespace moe {
namespace {

class Pairwise final : public Balancer {
 public:
  explicit Pairwise(double coef) : Balancer("pairwise"), coef_(coef) {}
  double coefficient() const override {
    return coef_;
  }
  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    const double tokens = double(in.valid_tokens());
    std::vector<double> mean(std::size_t(in.experts), 0.0);
    std::vector<double> share(std::size_t(in.experts), 0.0);
    double choices = 0;
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch().is_valid(t))
        continue;
      for (int e = 0; e < in.experts; ++e)
        mean[std::size_t(e)] += in.probability(t, e) / tokens;
      for (const int e : in.routing.expert.row(t)) {
        if (e >= 0) {
          share[std::size_t(e)] += 1;
          choices += 1;
        }
      }
    }
    const double probability = std::accumulate(mean.begin(), mean.end(), 0.0);
    double sum = 0;
    for (const double p : mean) {
      for (std::size_t j = 0; j < mean.size(); ++j)
        sum += p * (mean[j] + (choices > 0 ? share[j] / choices : 0));
    }
    const double slope = (2 * probability + (choices > 0 ? 1 : 0)) / tokens;
    for (Index t = 0; t < in.tokens(); ++t) {
      for (int e = 0; in.batch().is_valid(t) && e < in.experts; ++e)
        grad.dprob(t, e) += scale * coef_ * slope;
    }
    return sum;
  }

 private:
  double coef_;
};

}  // namespace

std::unique_ptr<Balancer> make_pairwise_balancer(Spec& spec) {
  return std::make_unique<Pairwise>(spec.get("coef", 0.01, 0.0));
}

}  // namespace moe
