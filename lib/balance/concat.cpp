// The balance loss over all MoE layers stacked into one (equations.md 6.2; load_balancing_loss_func
// of Hugging Face's Mixtral family): N = tokens of all layers, f_e = choices of e / N, P_e = mean
// probability over N; L = E sum_e f_e P_e, k at balance. It asks for an even load over the layers
// together, so layers that lean on different experts cost nothing.
#include "lib/balance/balancer.h"
#include "lib/core/spec.h"

namespace moe {
namespace {

class Concat final : public Balancer {
 public:
  explicit Concat(double coef) : Balancer("concat"), coef_(coef) {}
  double coefficient() const override {
    return coef_;
  }
  bool across_layers() const override {
    return true;
  }
  bool by_sums() const override {
    return true;
  }
  SumFactors sum_factors(const SelectionCounts& c) const override {
    SumFactors out;
    const double rows = double(std::max<Index>(1, c.tokens));
    // E f_e / N
    for (const std::int64_t n : c.chosen)
      out.probability.push_back(double(n) * (double(c.chosen.size()) / (rows * rows)));
    return out;
  }
  // a layer on its own
  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    return losses({&in, 1}, scale, {&grad, 1})[0];
  }

  // A layer's share: E sum_e f_e (sum of its p) / N; the shares add up to L.
  std::vector<double> losses(std::span<const BalanceInput> layers, double scale,
                             std::span<const BalanceGrad> grad) const override {
    std::vector<double> share(layers.size(), 0.0);
    std::vector<std::int64_t> chosen(std::size_t(layers[0].experts), 0);
    Index rows = 0;
    for (const BalanceInput& in : layers) {
      rows += in.valid_tokens();
      const auto n = count_experts(in.routing.expert, in.experts);
      for (std::size_t e = 0; e < chosen.size(); ++e)
        chosen[e] += n[e];
    }
    if (rows == 0)
      return share;
    const std::vector<double> slope = sum_factors({.chosen = chosen, .tokens = rows}).probability;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      for (Index t = 0; t < layers[l].tokens(); ++t) {
        if (!layers[l].batch().is_valid(t))
          continue;
        for (std::size_t e = 0; e < slope.size(); ++e) {
          share[l] += slope[e] * layers[l].probability(t, Index(e));
          grad[l].dprob(t, Index(e)) += scale * coef_ * slope[e];
        }
      }
    }
    return share;
  }

 private:
  double coef_;
};

}  // namespace

std::unique_ptr<Balancer> make_concat_balancer(Spec& spec) {
  return std::make_unique<Concat>(spec.get("coef", 0.01, 0.0));
}

}  // namespace moe
