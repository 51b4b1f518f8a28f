// The switch balance loss (equations.md 6.1; papers 2101.03961, 2006.16668, DeepSeek-V3 eq. 17-20
// for scope=sequence): L = E sum_i eta_i f_i P_i with f_i = n_i / sum n (no gradient) and P_i the
// mean probability. 1 at balance. by=modality: sum over modalities of factor_m E_m sum_i f_mi P_mi
// over the rows of each, E_m the experts that its rows may choose (ERNIE 4.5 VL).
#include <algorithm>
#include <optional>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/modality.h"
#include "lib/core/parallel.h"
#include "lib/core/spec.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

enum class Counts { topk, top1, unbiased, post_drop };

constexpr Index experts_at_once = 256;
constexpr Index rows_at_once = 256;

class Switch final : public Balancer {
 public:
  Switch(double coef, Counts counts, bool sequence, bool global, bool mean,
         std::optional<ByModality> factors)
      : Balancer("switch"),
        coef_(coef),
        counts_(counts),
        sequence_(sequence),
        global_(global),
        mean_(mean),
        factors_(factors) {}
  double coefficient() const override {
    return coef_;
  }
  double reduction(int layers) const override {
    return mean_ ? 1.0 / layers : 1;
  }

  bool counts_whole_step() const override {
    return global_;
  }

  std::vector<std::int64_t> counted(const BalanceInput& in) const override {
    const Matrix<int> unbiased = best_where_counted(in);
    const Matrix<int>& ids = counted_ids(in, unbiased);
    std::vector<std::int64_t> out(std::size_t(in.experts), 0);
    for (Index t = 0; t < in.tokens(); ++t) {
      if (in.batch().is_valid(t))
        count_row(ids, t, out);
    }
    return out;
  }

  bool by_sums() const override {
    return counts_ == Counts::topk && !sequence_ && !factors_;
  }
  SumFactors sum_factors(const SelectionCounts& c) const override {
    SumFactors out{.probability = std::vector<double>(c.chosen.begin(), c.chosen.end())};
    weigh(out.probability, c.other_counts, c.eta);
    for (double& v : out.probability)
      v /= double(std::max<Index>(1, c.tokens));
    return out;
  }

  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    const Matrix<int> unbiased = best_where_counted(in);
    const Matrix<int>& ids = counted_ids(in, unbiased);
    if (factors_)
      return by_modality(in, ids, scale, grad);
    if (!sequence_)
      return part(in, ids, {0, in.tokens()}, scale, grad);
    Index sequences = 0;
    const auto& start = in.batch().start;
    for (std::size_t q = 0; q + 1 < start.size(); ++q)
      sequences += valid(in, start[q], start[q + 1]) > 0;
    double sum = 0;
    for (std::size_t q = 0; q + 1 < start.size(); ++q) {
      if (valid(in, start[q], start[q + 1]) > 0)
        sum += part(in, ids, {start[q], start[q + 1]}, scale / double(sequences), grad);
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
  Matrix<int> best_where_counted(const BalanceInput& in) const {
    return counts_ == Counts::unbiased ? best_scores(in) : Matrix<int>{};
  }
  // The choices that count; `unbiased` are those of best_where_counted().
  const Matrix<int>& counted_ids(const BalanceInput& in, const Matrix<int>& unbiased) const {
    return counts_ == Counts::unbiased    ? unbiased
           : counts_ == Counts::post_drop ? in.routing.computed()
                                          : in.routing.expert;
  }
  template <class N>
  void count_row(const Matrix<int>& ids, Index t, std::vector<N>& n) const {
    for (Index j = 0; j < (counts_ == Counts::top1 ? 1 : ids.cols()); ++j) {
      if (ids(t, j) >= 0)
        ++n[std::size_t(ids(t, j))];
    }
  }
  // Rows first..last, all of them or those of one modality, of so many experts (0 = all).
  struct Rows {
    Index first = 0, last = 0;
    int modality = -1, experts = 0;

    bool has(const Batch& batch, Index t) const {
      return batch.is_valid(t) && (modality < 0 || batch.modality_of(t) == modality);
    }
  };
  double by_modality(const BalanceInput& in, const Matrix<int>& ids, double scale,
                     const BalanceGrad& grad) const {
    double sum = 0;
    for (int m = 0; m < modality_kinds; ++m) {
      Rows rows{0, in.tokens(), m, in.experts};
      for (Index t = 0; t < in.tokens(); ++t) {
        const auto barred = in.routing.bars_of(t);
        if (!rows.has(in.batch(), t))
          continue;
        rows.experts = in.experts - int(std::ranges::count(barred, std::uint8_t(1)));
        break;
      }
      const double factor = (*factors_)[std::size_t(m)];
      sum += factor * part(in, ids, rows, scale * factor, grad);
    }
    return sum;
  }
  // n_e becomes E eta_e f_e.
  void weigh(std::vector<double>& n, std::span<const std::int64_t> other_counts,
             std::span<const double> eta, int experts = 0) const {
    const double size = experts > 0 ? experts : double(n.size());
    double all = 0;
    if (global_) {
      for (std::size_t e = 0; e < other_counts.size(); ++e)
        n[e] += double(other_counts[e]);
    }
    for (const double v : n)
      all += v;
    for (std::size_t e = 0; e < n.size(); ++e)
      n[e] *= size / std::max(1.0, all) * (eta.empty() ? 1 : eta[e]);
  }
  // The loss over these rows, and its gradient.
  double part(const BalanceInput& in, const Matrix<int>& ids, const Rows& rows, double scale,
              const BalanceGrad& grad) const {
    const std::size_t experts = std::size_t(in.experts);
    std::vector<double> n(experts, 0.0);
    std::vector<double> mean(experts, 0.0);
    double tokens = 0;
    for (Index t = rows.first; t < rows.last; ++t) {
      if (!rows.has(in.batch(), t))
        continue;
      ++tokens;
      count_row(ids, t, n);
    }
    if (tokens == 0)
      return 0;
    parallel_for(in.experts, experts_at_once, [&](Index begin, Index end) {
      for (Index t = rows.first; t < rows.last; ++t) {
        if (!rows.has(in.batch(), t))
          continue;
        for (Index e = begin; e < end; ++e)
          mean[std::size_t(e)] += in.probability(t, e);
      }
    });
    weigh(n, in.other_counts, in.eta, rows.experts);
    double sum = 0;
    for (std::size_t e = 0; e < experts; ++e)
      sum += n[e] * mean[e] / tokens;
    parallel_for(rows.last - rows.first, rows_at_once, [&](Index begin, Index end) {
      for (Index t = rows.first + begin; t < rows.first + end; ++t) {
        if (!rows.has(in.batch(), t))
          continue;
        for (std::size_t e = 0; e < experts; ++e)
          grad.dprob(t, Index(e)) += scale * coef_ * n[e] / tokens;
      }
    });
    return sum;
  }

  double coef_;
  Counts counts_;
  bool sequence_, global_, mean_;      // mean_: over layers; else their sum
  std::optional<ByModality> factors_;  // of each modality; empty = all rows together
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
  const bool mean = spec.choice("layers", {"sum", "mean"}) == "mean";
  std::optional<ByModality> factors;
  // stored specs without it stay as they are
  if (spec.has("by") && spec.choice("by", {"all", "modality"}) == "modality") {
    factors = numbers_by_modality(spec.get("factors", "1"), 0, 0, "switch: factors");
    if (scope != "batch") {
      throw Error(Exit::usage, concat("switch: by=modality counts the rows of a batch, and scope=",
                                      scope, " does not keep their modalities apart"))
          .hint("scope=batch");
    }
  }
  return std::make_unique<Switch>(coef, c, scope == "sequence", scope == "global", mean, factors);
}

}  // namespace moe
