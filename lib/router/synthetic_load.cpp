// Choices with a given skew, for benchmarks: who is loaded how much is decided beforehand and
// nothing is learned. Expert e gets the share p_e of all choices, p falling by Zipf's law or one
// expert hot and the rest even. A token's k experts are a systematic sample: points u, u+1, ...,
// u+k-1 on the line of summed inclusion probabilities k p_e, so they are distinct, and with u_n the
// fractional parts of n times the golden ratio the counts of any run of tokens stay within a few of
// T k p_e.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/router.h"

namespace moe {
namespace {

class SyntheticLoad final : public Router {
 public:
  SyntheticLoad(int experts, int k, std::vector<double> inclusion)
      : Router(experts), k_(k), end_(std::move(inclusion)) {
    std::partial_sum(end_.begin(), end_.end(), end_.begin());
  }
  RouterFacts facts() const override {
    return {.k = k_, .k_is_option = true, .normalised = true};
  }
  std::vector<Projection> projections() const override {
    return {};
  }

  Routing route(const RouterInput& in) override {
    Routing r;
    r.expert = Matrix<int>(in.tokens(), k_, -1);
    r.weight = Matrix<double>(in.tokens(), k_);
    double u = 0.5;
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t))
        continue;
      for (int j = 0; j < k_; ++j) {
        const auto e = std::upper_bound(end_.begin(), end_.end(), u + j) - end_.begin();
        // Sums may round to just beside a whole number; ids rise all the same.
        r.expert(t, j) = std::clamp(int(e), j ? r.expert(t, j - 1) + 1 : 0, experts_ - k_ + j);
        r.weight(t, j) = 1.0 / k_;
      }
      u += 0.6180339887498949;
      u -= std::floor(u);
    }
    return r;
  }
  void backward(const RouterInput&, const Routing&, const Matrix<double>&, const Matrix<double>&,
                std::vector<Matrix<double>>&) const override {}

 private:
  int k_;
  std::vector<double> end_;  // (E) sums of the inclusion probabilities
};

// k p_e, but no token takes an expert twice: what would pass 1 goes to the others in proportion.
std::vector<double> inclusion_of(std::vector<double> p, int k) {
  std::vector<std::uint8_t> full(p.size(), 0);
  double left = k;
  for (bool again = true; again;) {
    again = false;
    double rest = 0;
    for (std::size_t e = 0; e < p.size(); ++e)
      rest += full[e] ? 0 : p[e];
    for (std::size_t e = 0; e < p.size(); ++e) {
      if (!full[e] && left * p[e] > rest) {
        full[e] = 1;
        again = true;
      }
    }
    left = k - double(std::ranges::count(full, 1));
  }
  double rest = 0;
  for (std::size_t e = 0; e < p.size(); ++e)
    rest += full[e] ? 0 : p[e];
  for (std::size_t e = 0; e < p.size(); ++e)
    p[e] = full[e] ? 1 : left * p[e] / rest;
  return p;
}

}  // namespace

std::unique_ptr<Router> make_synthetic_load_router(Spec& spec, int experts) {
  const int k = spec.get("k", 2, 1);
  // refused by its k
  if (k > experts)
    return std::make_unique<SyntheticLoad>(experts, k,
                                           std::vector<double>(std::size_t(experts), 1.0));
  std::vector<double> p(static_cast<std::size_t>(experts));
  if (spec.has("hot")) {
    const double hot = spec.get("hot", 0.0, 0.0);
    if (spec.has("zipf")) {
      throw Error(Exit::usage, "synthetic_load: hot= and zipf= are two kinds of skew")
          .hint("synthetic_load:k=2,zipf=1 or synthetic_load:k=2,hot=0.4");
    }
    if (hot * k > 1 || experts == 1) {
      throw Error(Exit::usage, concat("synthetic_load: an expert cannot take the share hot=", hot,
                                      " of the choices of tokens that have ", k,
                                      " different ones of ", experts, " experts"))
          .hint(concat("hot=", 1.0 / k, " or less"));
    }
    std::ranges::fill(p, (1 - hot) / (experts - 1));
    p[0] = hot;
  } else {
    const double zipf = spec.get("zipf", 1.0, 0.0);
    for (std::size_t e = 0; e < p.size(); ++e)
      p[e] = std::pow(double(e + 1), -zipf);
  }
  return std::make_unique<SyntheticLoad>(experts, k, inclusion_of(std::move(p), k));
}

}  // namespace moe
