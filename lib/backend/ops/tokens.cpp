#include "lib/backend/ops/tokens.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/backend/delegate.h"
#include "lib/backend/numbers.h"

namespace moe {

template <class S>
void TokenOps<S>::embed(const Weight& table, View<const int> id, View<S> y) {
  if (this->delegated(Operation::embed, &TokenOps::embed, table, id, y))
    return;
  const Numbers<S> rows(table);
  for (Index t = 0; t < y.rows; ++t)
    std::ranges::copy(rows.view().row(id(0, t)), y.row(t).begin());
}
template <class S>
void TokenOps<S>::embed_backward(View<const S> dy, View<const int> id, View<S> dtable) {
  if (this->delegated(Operation::embed_backward, &TokenOps::embed_backward, dy, id, dtable))
    return;
  for (Index t = 0; t < dy.rows; ++t) {
    for (Index h = 0; h < dy.cols; ++h)
      dtable(id(0, t), h) += dy(t, h);
  }
}
template <class S>
void TokenOps<S>::cross_entropy(View<S> z, View<const int> target, View<S> loss, S scale,
                                bool backward) {
  if (this->delegated(Operation::cross_entropy, &TokenOps::cross_entropy, z, target, loss, scale,
                      backward)) {
    return;
  }
  for (Index t = 0; t < z.rows; ++t) {
    double top = -std::numeric_limits<double>::infinity();
    double sum = 0;
    for (const S v : z.row(t))
      top = std::fmax(top, double(v));
    for (const S v : z.row(t))
      sum += std::exp(double(v) - top);
    const double lse = top + std::log(sum);
    const int want = target(0, t);
    loss(0, t) = want < 0 ? S(0) : S(lse - double(z(t, want)));
    if (!backward)
      continue;
    for (Index v = 0; v < z.cols; ++v) {
      z(t, v) =
          want < 0 ? S(0) : scale * S(std::exp(double(z(t, v)) - lse) - (v == want ? 1.0 : 0.0));
    }
  }
}

template class TokenOps<float>;
template class TokenOps<double>;

}  // namespace moe
