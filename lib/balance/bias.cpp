// Loss-free balancing (equations.md 7.1; paper 2408.15664): after each step the selection bias of
// every expert moves by `rate` against its load, by the sign of (mean - count); center=1 takes the
// mean of the moves out. Where rows may choose among some experts only, each set of experts has a
// mean of its own: many patches must not look like overload of the experts of pictures.
#include <numeric>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// (E) mean count of the experts that are chosen by the same rows.
std::vector<double> means_of(std::span<const std::int64_t> counts, const std::vector<int>& sets) {
  if (sets.empty()) {
    const double all = double(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    return std::vector<double>(counts.size(), all / double(counts.size()));
  }
  std::vector<double> sum(counts.size(), 0.0);
  std::vector<double> experts(counts.size(), 0.0);
  for (std::size_t e = 0; e < counts.size(); ++e) {
    sum[std::size_t(sets[e])] += double(counts[e]);
    ++experts[std::size_t(sets[e])];
  }
  std::vector<double> out;
  for (const int set : sets)
    out.push_back(sum[std::size_t(set)] / experts[std::size_t(set)]);
  return out;
}

class Bias final : public Balancer {
 public:
  Bias(double rate, bool center) : Balancer("bias"), rate_(rate), center_(center) {}
  double loss(const BalanceInput&, double, const BalanceGrad&) const override {
    return 0;
  }
  double coefficient() const override {
    return 0;
  }
  bool by_sums() const override {
    return true;
  }
  bool moves_bias() const override {
    return true;
  }
  void stepped(Router& router, std::span<const std::int64_t> counts, std::int64_t) override {
    const std::span<double> beta = router.correction_bias();
    if (beta.empty()) {
      throw Error(Exit::usage, "the balancer 'bias' needs a router with a correction bias")
          .hint("--router sigmoid:bias=1 or softmax:bias=1");
    }
    const std::vector<double> mean = means_of(counts, router.choice_sets());
    std::vector<double> move(beta.size());
    for (std::size_t e = 0; e < move.size(); ++e)
      move[e] = rate_ * double((mean[e] > double(counts[e])) - (mean[e] < double(counts[e])));
    const double shift =
        center_ ? std::accumulate(move.begin(), move.end(), 0.0) / double(move.size()) : 0;
    for (std::size_t e = 0; e < move.size(); ++e)
      beta[e] += move[e] - shift;
  }

 private:
  double rate_;
  bool center_;
};

}  // namespace

std::unique_ptr<Balancer> make_bias_balancer(Spec& spec) {
  const double rate = spec.get("rate", 0.001, 0.0);
  return std::make_unique<Bias>(rate, spec.get("center", false));
}

}  // namespace moe
