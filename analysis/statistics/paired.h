// What few repetitions can say: means with intervals, differences of pairs, corrections for many
// comparisons, and how many more repetitions an answer would take. Pure functions of numbers; the
// same numbers give the same bytes.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace moe::statistics {

// Two-sided tail of Student's t: P(|T| >= t) with `freedom` >= 1 degrees of freedom. The finite
// sums of Abramowitz and Stegun, 26.7.3 and 26.7.4. tail(12.706, 1) = 0.05
double student_tail(double t, int freedom);
// t with student_tail(t, freedom) = tail, 0 < tail < 1. quantile(0.05, 2) = 4.303
double student_quantile(double tail, int freedom);
double normal_below(double z);  // P(Z <= z)

struct Estimate {
  double value = 0;          // mean
  double low = 0, high = 0;  // interval of the level asked for; NaN where n < 2
  double deviation = 0;      // sample standard deviation of one repetition; NaN where n < 2
  int n = 0;                 // repetitions
  double p = 1;              // two-sided, of a mean of `against`; NaN where n < 2
};
// Of independent repetitions (for pairs: of their differences). The interval holds both Student's
// and the bootstrap's percentiles, the latter expanded for few values (Hesterberg, "What teachers
// should know about the bootstrap", 2015, section 4): percentiles alone cannot leave the range of
// the values, which holds the mean in only 75 of 100 experiments of three. All values equal: the
// interval is that value.
Estimate estimate(std::span<const double> values, double against = 0, double level = 0.95);

// Sums over sums: of pieces of text with `over` nats and `under` tokens each, the mean of a token,
// with a paired bootstrap over the pieces. estimate() of ratios that share a denominator.
Estimate ratio_estimate(std::span<const double> over, std::span<const double> under,
                        double level = 0.95);

// Mean of b less mean of a, of repetitions that are not paired: Welch's interval, its degrees of
// freedom rounded down. NaN where either has fewer than two values.
Estimate unpaired(std::span<const double> a, std::span<const double> b, double level = 0.95);

// Wilson's interval (1927) of a share, `part` of `whole` > 0 independent trials; z = 1.96 gives
// 95 %. It stays within 0 to 1, also of few or all.
std::pair<double, double> wilson(double part, double whole, double z = 1.96);

struct Corrected {
  double level = 0.95;  // of the interval that decides this comparison
  double p = 1;         // adjusted
};
// Holm's step-down correction ("A simple sequentially rejective multiple test procedure", 1979):
// all false rejections of a family together happen in at most `error` of experiments. A p that is
// NaN takes no part.
std::vector<Corrected> holm(std::span<const double> p, double error = 0.05);

// Repetitions until an interval of that level has a half-width below `distance`, if they scatter by
// `deviation` as so far; 0 = more than `most`.
int repetitions_needed(double deviation, double distance, double level, int most = 1000);

}  // namespace moe::statistics
