// What routers share: choosing the best of a row, weights from scores and their backward
// (equations.md section 1), the backwards of softmax and sigmoid. Ties go to the lower id
// everywhere.
#pragma once
#include <span>

#include "lib/core/matrix.h"

namespace moe {

constexpr double norm_eps = 1e-20;  // equations.md 0.2: added to every sum that divides

// The n largest of `key` in falling order into `out` (n = out.size()); -1 where fewer than n are
// above -inf. Ties: lower index.
void best_of(std::span<const double> key, std::span<int> out);

double log_sum_exp(std::span<const double> z);
void softmax_row(std::span<const double> z, std::span<double> p);
// dz += p (dp - sum dp p)
void softmax_row_backward(std::span<const double> p, std::span<const double> dp,
                          std::span<double> dz);

void sigmoid_row(std::span<const double> z, std::span<double> s);
// s = sqrt(ln(1 + e^z)), and its slope by the score itself
void sqrt_softplus_row(std::span<const double> z, std::span<double> s);
double sqrt_softplus_slope(double s);
// s / (sum s + 1e-20) by rows: probabilities of scores that are not
Matrix<double> normalized_rows(const Matrix<double>& s);
// ds += the backward of one row of it.
void normalized_row_backward(std::span<const double> s, std::span<const double> dp,
                             std::span<double> ds);

struct WeightRule {
  bool norm = true;  // nu: divide by the sum of the chosen scores
  double scale = 1;  // a
  double eps = norm_eps;
  double least = 0;  // the divisor is no smaller (ERNIE 4.5: moe_norm_min)
};
// D: the sum of the chosen scores + eps, at least `least`, where they are normalised, else 1.
double divisor_of(std::span<const double> score, std::span<const int> ids, const WeightRule&);
// Whether D moves with the scores.
inline bool divides_by_sum(const WeightRule& rule, double divisor) {
  return rule.norm && divisor > rule.least;
}
// w_j = scale s_e / D, D = sum of the chosen + eps or 1; 0 where the id is -1.
void weights_of(std::span<const double> score, std::span<const int> ids, const WeightRule&,
                std::span<double> weight);
// ds += the backward of weights_of; equations.md section 1.
void weights_of_backward(std::span<const double> score, std::span<const int> ids, const WeightRule&,
                         std::span<const double> weight, std::span<const double> dweight,
                         std::span<double> dscore);

// Groups of experts (equations.md 2.3): `limited` keeps the best topk groups and sets key = -inf
// elsewhere; `one` takes the k/groups best of every group.
struct Groups {
  enum class Mode { none, limited, one } mode = Mode::none;
  enum class Score { top2_sum, max } score = Score::max;
  int groups = 1, topk = 1;
};
// Chooses k ids of a row in falling order of `key`; group scores are made from `group_key`. May
// overwrite key.
void choose(std::span<double> key, std::span<const double> group_key, const Groups&,
            std::span<int> out);

}  // namespace moe
