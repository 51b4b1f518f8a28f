// The gradient noise scale: how large a batch must be before its gradient is more signal than
// noise (McCandlish et al. 2018, arXiv 1812.06162, B_simple = tr(Sigma) / |G|^2).
#pragma once

namespace moe {

// Of the gradient G that a batch of all tokens would have, and of the covariance Sigma that a
// single token would give it: estimates without bias, from one step. Single ones scatter widely and
// may be negative; the noise scale is the mean of `trace` over many steps by the mean of `square`.
struct NoiseEstimate {
  double square = 0;  // of |G|^2
  double trace = 0;   // of tr(Sigma), times tokens
};

// From |g|^2 of small batches (their mean) and of the big batch that they make up, whose gradient
// is the mean of theirs; sizes in tokens, small < big. (Appendix A.1 of the paper.)
inline NoiseEstimate estimate_noise(double small_square, double big_square, double small,
                                    double big) {
  return {(big * big_square - small * small_square) / (big - small),
          (small_square - big_square) / (1 / small - 1 / big)};
}

}  // namespace moe
