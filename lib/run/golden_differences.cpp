#include "lib/run/golden_differences.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace moe {

template <class T>
double apart(std::span<const T> got, const std::vector<double>& want) {
  if (got.size() != want.size())
    return std::numeric_limits<double>::infinity();
  double most = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = std::abs(double(got[i]) - want[i]);
    if (!(d <= most))
      most = std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return most;
}
template double apart(std::span<const float>, const std::vector<double>&);
template double apart(std::span<const double>, const std::vector<double>&);

void compare_choices(const Routing& r, const std::vector<double>& ids,
                     const std::vector<double>& weights, GoldenModelResult& out) {
  const Index k = r.choices();
  if (ids.size() != std::size_t(r.tokens() * k))
    return void(out.wrong_choices += long(ids.size()) + 1);
  for (Index t = 0; t < r.tokens(); ++t) {
    for (Index j = 0; j < k; ++j) {
      const std::size_t at = std::size_t(t * k + j);
      const auto row = r.expert.row(t);
      const auto mine = std::ranges::find(row, int(ids[at]));
      ++out.choices;
      if (mine == row.end()) {
        ++out.wrong_choices;
      } else {
        out.weights =
            std::max(out.weights, std::abs(r.weight(t, mine - row.begin()) - weights[at]));
      }
    }
  }
}

}  // namespace moe
