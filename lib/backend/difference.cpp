#include "lib/backend/difference.h"

#include <cmath>
#include <limits>

#include "lib/core/text.h"

namespace moe {

template <class S>
Difference difference(View<const S> got, View<const S> want) {
  Difference d;
  if (got.size() != want.size() || (got.size() > 0 && got.cols != want.cols)) {
    d.error = std::numeric_limits<double>::quiet_NaN();
    return d;
  }
  double wrong = 0;
  double size = 0;
  for (Index r = 0; r < want.rows; ++r) {
    for (Index c = 0; c < want.cols; ++c) {
      const double a = double(got(r, c));
      const double b = double(want(r, c));
      const double e = std::abs(a - b);
      wrong += e * e;
      size += b * b;
      if (e > d.worst || (std::isnan(e) && !std::isnan(d.worst))) {
        d.worst = e;
        d.row = r;
        d.col = c;
        d.got = a;
        d.want = b;
      }
    }
  }
  d.error = size > 0 ? wrong / size : wrong;  // Inf / Inf and NaN stay NaN
  return d;
}
template Difference difference<float>(View<const float>, View<const float>);
template Difference difference<double>(View<const double>, View<const double>);

std::string text_of(const Difference& d) {
  if (d.row < 0)
    return std::isnan(d.error) ? "the shapes differ" : "equal";
  return concat(d.got, " instead of ", d.want, " at (", d.row, ",", d.col, "), error ", d.error);
}

}  // namespace moe
