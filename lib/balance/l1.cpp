// The L1 loss of ReLU routing (equations.md 6.7 and 7.2; ReMoE 2412.14711): the mean of the
// positive logits, weighted by load where balanced=1. Its coefficient is state: after each step it
// grows by `growth` while more than k of E experts are active a token, and shrinks by it while
// fewer are.
#include <cmath>
#include <numeric>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"

namespace moe {
namespace {

class L1 final : public Balancer {
 public:
  L1(double coef, double growth, bool balanced, int k)
      : Balancer("l1"), coef_(coef), growth_(growth), balanced_(balanced), k_(k) {}
  double coefficient() const override {
    return coef_;
  }
  std::vector<State> state() override {
    return {{"coef", {&coef_, 1}}};
  }

  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    const double tokens = double(in.valid_tokens());
    const Matrix<double>& z = in.routing.logits;
    std::vector<double> f(std::size_t(in.experts), 1.0);
    if (balanced_) {
      std::ranges::fill(f, 0.0);
      for (Index t = 0; t < in.tokens(); ++t) {
        for (Index e = 0; e < in.experts; ++e)
          f[e] += (z(t, e) > 0) * (in.experts / (k_ * tokens));
      }
    }
    double sum = 0;
    for (Index t = 0; t < in.tokens(); ++t)  // rows of padding are 0
    {
      for (Index e = 0; e < in.experts; ++e) {
        if (!(z(t, e) > 0))
          continue;
        sum += f[e] * z(t, e) / tokens;
        grad.dlogits(t, e) += scale * coef_ * f[e] / tokens;
      }
    }
    return sum;
  }
  void stepped(Router&, std::span<const std::int64_t> counts, std::int64_t tokens) override {
    if (tokens <= 0)
      throw Error(Exit::bug, "the balancer 'l1' was stepped without the number of tokens");
    const double active = double(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    const double experts = double(counts.size());
    const double sparsity = 1 - active / (double(tokens) * experts);
    const double wanted = 1 - k_ / experts;
    coef_ *= std::pow(growth_, double((wanted > sparsity) - (wanted < sparsity)));
  }

 private:
  double coef_, growth_;
  bool balanced_;
  int k_;
};

}  // namespace

std::unique_ptr<Balancer> make_l1_balancer(Spec& spec) {
  const double coef = spec.get("coef", 1e-8, 0.0);
  const double growth = spec.get("growth", 1.2, 1.0);
  const bool balanced = spec.get("balanced", true);
  return std::make_unique<L1>(coef, growth, balanced, spec.get("k", 2, 1));
}

}  // namespace moe
