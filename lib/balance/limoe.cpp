// The entropy losses of LIMoE (2206.02770), for each modality m over its valid rows, p = softmax(z)
// over the experts that a row may choose:
//   local_m  = mean_t H(p_t): rows become sure of their experts;
//   global_m = max(0, ln least_m - H(mean_t p_t)): a modality spreads over `least` experts at least
//              (softly), and is left alone beyond that.
#include <array>
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/modality.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"
#include "lib/router/modality_mask.h"
#include "lib/router/scores.h"

namespace moe {
namespace {

double times_log(double p) {
  return p > 0 ? p * std::log(p) : 0;
}

class Limoe final : public Balancer {
 public:
  Limoe(const ByModality& local, const ByModality& global, const ByModality& least)
      : Balancer("limoe"), local_(local), global_(global), least_(least) {}
  double coefficient() const override {
    return 1;  // each modality has its own
  }
  double loss(const BalanceInput& in, double scale, const BalanceGrad& grad) const override {
    const Matrix<double> p = softmaxes(in);
    double sum = 0;
    for (int m = 0; m < modality_kinds; ++m)
      sum += of_modality(in, p, m, scale, grad);
    return sum;
  }

 private:
  static Matrix<double> softmaxes(const BalanceInput& in) {
    Matrix<double> p(in.tokens(), in.experts);
    std::vector<double> z(std::size_t(in.experts));
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch().is_valid(t))
        continue;
      with_bars(in.routing.logits.row(t), in.routing.bars_of(t), z);
      softmax_row(z, p.row(t));
    }
    return p;
  }
  double of_modality(const BalanceInput& in, const Matrix<double>& p, int m, double scale,
                     const BalanceGrad& grad) const {
    const std::size_t at = std::size_t(m);
    std::vector<Index> rows;
    for (Index t = 0; t < in.tokens(); ++t) {
      if (in.batch().is_valid(t) && in.batch().modality_of(t) == m)
        rows.push_back(t);
    }
    if (rows.empty())
      return 0;
    const double n = double(rows.size());
    std::vector<double> mean(std::size_t(in.experts), 0.0);
    double local = 0;
    for (const Index t : rows) {
      for (Index e = 0; e < in.experts; ++e) {
        mean[std::size_t(e)] += p(t, e) / n;
        local -= times_log(p(t, e)) / n;
      }
    }
    double spread = 0;  // H(mean p)
    for (const double q : mean)
      spread -= times_log(q);
    const double lack = std::log(least_[at]) - spread;
    for (const Index t : rows)
      row_gradient(p, t, mean, {local_[at] * scale / n, lack > 0 ? global_[at] * scale / n : 0},
                   grad);
    return local_[at] * local + global_[at] * std::max(0.0, lack);
  }
  struct Factors {
    double local, global;
  };
  // d local = -p (ln p - sum p ln p), d global = p (ln q - sum p ln q), q the mean of p.
  static void row_gradient(const Matrix<double>& p, Index t, std::span<const double> mean,
                           const Factors& f, const BalanceGrad& grad) {
    const auto row = p.row(t);
    double own = 0;
    double shared = 0;
    for (std::size_t e = 0; e < row.size(); ++e) {
      own += times_log(row[e]);
      shared += row[e] > 0 ? row[e] * std::log(mean[e]) : 0;
    }
    for (std::size_t e = 0; e < row.size(); ++e) {
      if (row[e] > 0) {
        grad.dlogits(t, Index(e)) += f.global * row[e] * (std::log(mean[e]) - shared) -
                                     f.local * row[e] * (std::log(row[e]) - own);
      }
    }
  }

  ByModality local_, global_, least_;
};

}  // namespace

std::unique_ptr<Balancer> make_limoe_balancer(Spec& spec) {
  const auto numbers = [&](const char* key, const char* usual, double absent, double least) {
    return numbers_by_modality(spec.get(key, usual), absent, least, concat("limoe: ", key));
  };
  const ByModality local = numbers("local", "text:0.04", 0, 0);
  const ByModality global = numbers("global", "0.04", 0, 0);
  return std::make_unique<Limoe>(local, global, numbers("least", "4", 1, 1));
}

}  // namespace moe
