// The switch balance loss (equations.md 6.1; papers 2101.03961, 2006.16668, DeepSeek-V3 eq. 17-20
// for scope=sequence): L = E sum_i eta_i f_i P_i with f_i = n_i / sum n (no gradient) and P_i the
// mean probability. 1 at balance.
#include "lib/balance/balancer.h"
#include "lib/core/spec.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

enum class Counts { topk, top1, unbiased, post_drop };

class Switch final : public Balancer {
 public:
  Switch(double coef, Counts counts, bool sequence, bool global, bool mean)
      : Balancer("switch"),
        coef_(coef),
        counts_(counts),
        sequence_(sequence),
        global_(global),
        mean_(mean) {}
  double coefficient() const override {
    return coef_;
  }
  double reduction(int layers) const override {
    return mean_ ? 1.0 / layers : 1;
  }

  bool counts_whole_step() const override {
    return global_;
  }

  bool by_sums() const override {
    return counts_ == Counts::topk && !sequence_;
  }
  SumFactors sum_factors(const SelectionCounts& c) const override {
    SumFactors out{.probability = std::vector<double>(c.chosen.begin(), c.chosen.end())};
    weigh(out.probability, c.other_counts, c.eta);
    for (double& v : out.probability)
      v /= double(std::max<Index>(1, c.tokens));
    return out;
  }

  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    const Matrix<int> unbiased = counts_ == Counts::unbiased ? best_scores(in) : Matrix<int>{};
    const Matrix<int>& ids = counts_ == Counts::unbiased    ? unbiased
                             : counts_ == Counts::post_drop ? in.routing.computed()
                                                            : in.routing.expert;
    if (!sequence_)
      return part(in, ids, 0, in.tokens(), scale, grad);
    Index sequences = 0;
    const auto& start = in.batch().start;
    for (std::size_t q = 0; q + 1 < start.size(); ++q)
      sequences += valid(in, start[q], start[q + 1]) > 0;
    double sum = 0;
    for (std::size_t q = 0; q + 1 < start.size(); ++q) {
      if (valid(in, start[q], start[q + 1]) > 0)
        sum += part(in, ids, start[q], start[q + 1], scale / double(sequences), grad);
    }
    return sequences ? sum / double(sequences) : 0;
  }

 private:
  static Index valid(const BalanceInput& in, Index first, Index last) {
    Index n = 0;
    for (Index t = first; t < last; ++t)
      n += in.batch().is_valid(t);
    return n;
  }
  // The k best of the scores without correction bias and groups.
  static Matrix<int> best_scores(const BalanceInput& in) {
    Matrix<int> ids(in.tokens(), in.routing.choices(), -1);
    for (Index t = 0; t < in.tokens(); ++t) {
      if (in.batch().is_valid(t))
        best_of(in.routing.score.row(t), ids.row(t));
    }
    return ids;
  }
  // n_e becomes E eta_e f_e.
  void weigh(std::vector<double>& n, std::span<const std::int64_t> other_counts,
             std::span<const double> eta) const {
    double all = 0;
    if (global_) {
      for (std::size_t e = 0; e < other_counts.size(); ++e)
        n[e] += double(other_counts[e]);
    }
    for (const double v : n)
      all += v;
    for (std::size_t e = 0; e < n.size(); ++e)
      n[e] *= double(n.size()) / std::max(1.0, all) * (eta.empty() ? 1 : eta[e]);
  }
  // The loss over tokens first..last, and its gradient.
  double part(const BalanceInput& in, const Matrix<int>& ids, Index first, Index last, double scale,
              const BalanceGrad& grad) const {
    const std::size_t experts = std::size_t(in.experts);
    std::vector<double> n(experts, 0.0);
    std::vector<double> mean(experts, 0.0);
    double tokens = 0;
    for (Index t = first; t < last; ++t) {
      if (!in.batch().is_valid(t))
        continue;
      ++tokens;
      for (Index j = 0; j < (counts_ == Counts::top1 ? 1 : ids.cols()); ++j) {
        if (ids(t, j) >= 0)
          ++n[ids(t, j)];
      }
      for (std::size_t e = 0; e < experts; ++e)
        mean[e] += in.probability(t, Index(e));
    }
    if (tokens == 0)
      return 0;
    weigh(n, in.other_counts, in.eta);
    double sum = 0;
    for (std::size_t e = 0; e < experts; ++e)
      sum += n[e] * mean[e] / tokens;
    for (Index t = first; t < last; ++t) {
      for (std::size_t e = 0; e < experts && in.batch().is_valid(t); ++e)
        grad.dprob(t, Index(e)) += scale * coef_ * n[e] / tokens;
    }
    return sum;
  }

  double coef_;
  Counts counts_;
  bool sequence_, global_, mean_;  // mean_: over layers; else their sum
};

}  // namespace

std::unique_ptr<Balancer> make_switch_balancer(Spec& spec) {
  const double coef = spec.get("coef", 0.01, 0.0);
  const std::string counts = spec.choice("counts", {"topk", "top1", "unbiased", "post_drop"});
  const std::string scope = spec.choice("scope", {"batch", "sequence", "global"});
  const Counts c = counts == "top1"        ? Counts::top1
                   : counts == "unbiased"  ? Counts::unbiased
                   : counts == "post_drop" ? Counts::post_drop
                                           : Counts::topk;
  return std::make_unique<Switch>(coef, c, scope == "sequence", scope == "global",
                                  spec.choice("layers", {"sum", "mean"}) == "mean");
}

}  // namespace moe
