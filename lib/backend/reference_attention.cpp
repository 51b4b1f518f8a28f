// Causal attention by its definition: out_i = sum_j softmax_j(scale q_i.k_j) v_j over the keys j
// that query i may see.
#include <cmath>
#include <limits>
#include <vector>

#include "lib/backend/reference.h"

namespace moe {
namespace {

// Calls each(row of q, head, first key row, one past the last key row) for every query and head.
template <class Each>
void for_queries(const AttentionShape& a, Each each) {
  for (std::size_t s = 0; s + 1 < a.query_start.size(); ++s) {
    const Index queries = a.query_start[s + 1] - a.query_start[s];
    const Index keys = a.key_start[s + 1] - a.key_start[s];
    for (Index i = 0; i < queries; ++i) {
      const Index last = keys - queries + i;
      const Index first = a.first_key(last);
      for (Index h = 0; h < a.heads; ++h)
        each(a.query_start[s] + i, h, a.key_start[s] + first, a.key_start[s] + last + 1);
    }
  }
}

template <class S>
double dot(const S* a, const S* b, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i)
    sum += double(a[i]) * double(b[i]);
  return sum;
}

}  // namespace

template <class S>
void Reference<S>::attention(View<const S> q, View<const S> k, View<const S> v,
                             const AttentionShape& a, View<S> out, View<S> lse) {
  const Index d = a.head_dim;
  const Index dv = a.value_columns();
  std::vector<double> sum(std::size_t(dv), 0.0);
  for_queries(a, [&](Index t, Index h, Index first, Index last) {
    const Index g = h / (a.heads / a.kv_heads);
    double top = -std::numeric_limits<double>::infinity();
    double total = 0;
    for (Index j = first; j < last; ++j)
      top = std::fmax(top, a.scale * dot(&q(t, h * d), &k(j, g * d), d));
    std::ranges::fill(sum, 0.0);
    for (Index j = first; j < last; ++j) {
      const double p = std::exp(a.scale * dot(&q(t, h * d), &k(j, g * d), d) - top);
      total += p;
      for (Index i = 0; i < dv; ++i)
        sum[std::size_t(i)] += p * double(v(j, g * dv + i));
    }
    for (Index i = 0; i < dv; ++i)
      out(t, h * dv + i) = S(sum[std::size_t(i)] / total);
    lse(t, h) = S(top + std::log(total));
  });
}

template <class S>
void Reference<S>::attention_backward(View<const S> q, View<const S> k, View<const S> v,
                                      View<const S> out, View<const S> lse, View<const S> dout,
                                      const AttentionShape& a, View<S> dq, View<S> dk, View<S> dv) {
  const Index d = a.head_dim;
  const Index n = a.value_columns();
  for (auto& m : {dq, dk, dv})
    std::ranges::fill(m.flat(), S(0));
  for_queries(a, [&](Index t, Index h, Index first, Index last) {
    const Index g = h / (a.heads / a.kv_heads);
    const double delta = dot(&out(t, h * n), &dout(t, h * n), n);
    for (Index j = first; j < last; ++j) {
      const double p = std::exp(a.scale * dot(&q(t, h * d), &k(j, g * d), d) - double(lse(t, h)));
      const double ds = p * (dot(&dout(t, h * n), &v(j, g * n), n) - delta) * a.scale;
      for (Index i = 0; i < n; ++i)
        dv(j, g * n + i) += S(p * double(dout(t, h * n + i)));
      for (Index i = 0; i < d; ++i) {
        dq(t, h * d + i) += S(ds * double(k(j, g * d + i)));
        dk(j, g * d + i) += S(ds * double(q(t, h * d + i)));
      }
    }
  });
}

template class Reference<float>;
template class Reference<double>;

}  // namespace moe
