// Quantile balancing (Megatron-LM, qb_dual_update; docs/routers.md): no loss and no rate. A
// balanced assignment of tokens to experts is a linear programme; one step of its dual by
// coordinates gives the selection bias at which every expert would be chosen by exactly its share
// of the batch, were the tokens' own thresholds to stay.
#include <algorithm>
#include <functional>
#include <numeric>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/spec.h"
#include "lib/router/reroutes.h"
#include "lib/router/router.h"

namespace moe {
namespace {

class Quantile final : public Balancer {
 public:
  explicit Quantile(double ema) : Balancer("quantile"), ema_(ema) {}
  double loss(const BalanceInput&, double, const BalanceGrad&) const override {
    return 0;
  }
  double coefficient() const override {
    return 0;
  }
  bool moves_bias() const override {
    return true;
  }
  void check(const Router& router) const override {
    const Reroutes* ranking = capability<Reroutes>(router);
    if (!ranking || !ranking->ranks_all()) {
      throw Error(Exit::usage,
                  "the balancer 'quantile' compares every expert's key with a token's threshold, "
                  "and this router does not rank all experts for every token")
          .hint("softmax or sigmoid without groups: softmax:k=2,bias=1,bias_on=logit");
    }
    if (router.choices() >= router.experts()) {
      throw Error(Exit::usage,
                  concat("the balancer 'quantile' has nothing to move where every token takes all ",
                         router.experts(), " experts"))
          .hint("a smaller k");
    }
  }

  // (E) the biases that the micro-batch alone would ask for
  std::vector<double> seen(Router& router, const BalanceInput& in) const override {
    if (in.valid_tokens() == 0)
      return {};
    const Matrix<double> above = above_threshold(router, in);
    const Index tokens = above.rows();
    const Index share = tokens * in.routing.choices() / in.experts;  // m
    std::vector<double> out(std::size_t(in.experts), 0.0);
    parallel_for(in.experts, 16, [&](Index first, Index last) {
      std::vector<double> column(static_cast<std::size_t>(tokens));
      for (Index e = first; e < last; ++e) {
        for (Index n = 0; n < tokens; ++n)
          column[n] = above(n, e);
        std::ranges::nth_element(column, column.begin() + share, std::greater{});
        out[e] = -column[share];
      }
    });
    return out;
  }
  void take(std::span<const double> seen) override {
    if (seen.empty())
      return;
    sum_.resize(seen.size(), 0.0);
    for (std::size_t e = 0; e < seen.size(); ++e)
      sum_[e] += seen[e];
    ++batches_;
  }

  void stepped(Router& router, std::span<const std::int64_t>, std::int64_t) override {
    if (batches_ == 0)
      return;
    const std::span<double> beta = router.correction_bias();
    for (std::size_t e = 0; e < beta.size(); ++e)
      beta[e] = ema_ * beta[e] + (1 - ema_) * sum_[e] / double(batches_);
    const double mean = std::accumulate(beta.begin(), beta.end(), 0.0) / double(beta.size());
    for (double& b : beta)
      b -= mean;
    sum_.clear();
    batches_ = 0;
  }

 private:
  // v - alpha, (valid tokens, E): how far an expert's key, without bias, is above the threshold of
  // its token, the key of the best expert that is not chosen.
  static Matrix<double> above_threshold(Router& router, const BalanceInput& in) {
    const Reroutes& ranking = *capability<Reroutes>(router);
    const std::span<const double> beta = router.correction_bias();
    const Index choices = in.routing.choices();
    std::vector<Index> row;
    for (Index t = 0; t < in.tokens(); ++t) {
      if (in.batch().is_valid(t))
        row.push_back(t);
    }
    Matrix<double> above(Index(row.size()), in.experts);
    parallel_for(above.rows(), 64, [&](Index first, Index last) {
      std::vector<double> key(static_cast<std::size_t>(in.experts));
      std::vector<double> sorted;
      for (Index n = first; n < last; ++n) {
        ranking.rank(in.routing, row[n], key);
        sorted = key;
        const auto threshold = sorted.begin() + choices;
        std::ranges::nth_element(sorted, threshold, std::greater{});
        for (std::size_t e = 0; e < key.size(); ++e)
          above(n, Index(e)) = key[e] - beta[e] - *threshold;
      }
    });
    return above;
  }

  double ema_;
  std::vector<double> sum_;  // (E) of this step's micro-batches
  int batches_ = 0;
};

}  // namespace

std::unique_ptr<Balancer> make_quantile_balancer(Spec& spec) {
  const double ema = spec.get("ema", 0.0, 0.0);
  if (ema >= 1)
    throw Error(Exit::usage, concat("quantile: ema=", ema, " must be below 1")).hint("ema=0.9");
  return std::make_unique<Quantile>(ema);
}

}  // namespace moe
