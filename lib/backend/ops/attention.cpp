// Attention: out_i = sum_j softmax_j(scale q_i.k_j) v_j over the keys j that query i may see.
#include "lib/backend/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/backend/delegate.h"
#include "lib/backend/row_products.h"

namespace moe {

std::vector<double> rotary_frequencies(int dims, double theta) {
  std::vector<double> out;
  for (int j = 0; j < dims / 2; ++j)
    out.push_back(std::pow(theta, -2.0 * j / dims));
  return out;
}

template <class S>
void AttentionOps<S>::rope(View<S> x, const Rotation& r, View<const int> position,
                           bool transposed) {
  if (this->delegated(Operation::rope, &AttentionOps::rope, x, r, position, transposed))
    return;
  const Index pairs = Index(r.frequency.size());
  const Index step = r.interleaved ? 2 : 1;
  const Index apart = r.interleaved ? 1 : pairs;
  for (Index t = 0; t < x.rows; ++t) {
    for (Index h = 0; h < x.cols / r.head_dim; ++h) {
      for (Index j = 0; j < pairs; ++j) {
        const double angle = double(position(0, t)) * r.frequency[j] * (transposed ? -1 : 1);
        S* a = &x(t, h * r.head_dim + r.first + j * step);
        const double c = r.scale * std::cos(angle);
        const double s = r.scale * std::sin(angle);
        const double va = double(a[0]);
        const double vb = double(a[apart]);
        a[0] = S(va * c - vb * s);
        a[apart] = S(vb * c + va * s);
      }
    }
  }
}
template <class S>
void AttentionOps<S>::join_heads(View<const S> a, View<const S> b, int heads, View<S> y) {
  if (this->delegated(Operation::join_heads, &AttentionOps::join_heads, a, b, heads, y))
    return;
  const Index m = a.cols / heads;
  const Index n = y.cols / heads - m;
  const Index apart = b.cols == n ? 0 : n;
  for (Index t = 0; t < y.rows; ++t) {
    for (Index h = 0; h < heads; ++h) {
      for (Index i = 0; i < m; ++i)
        y(t, h * (m + n) + i) = a(t, h * m + i);
      for (Index i = 0; i < n; ++i)
        y(t, h * (m + n) + m + i) = b(t, h * apart + i);
    }
  }
}
template <class S>
void AttentionOps<S>::split_heads(View<const S> y, int heads, View<S> a, View<S> b) {
  if (this->delegated(Operation::split_heads, &AttentionOps::split_heads, y, heads, a, b))
    return;
  const Index m = a.cols / heads;
  const Index n = y.cols / heads - m;
  const Index apart = b.cols == n ? 0 : n;
  std::ranges::fill(b.flat(), S(0));
  for (Index t = 0; t < y.rows; ++t) {
    for (Index h = 0; h < heads; ++h) {
      for (Index i = 0; i < m; ++i)
        a(t, h * m + i) = y(t, h * (m + n) + i);
      for (Index i = 0; i < n; ++i)
        b(t, h * apart + i) += y(t, h * (m + n) + m + i);
    }
  }
}

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

}  // namespace

template <class S>
void AttentionOps<S>::attention(View<const S> q, View<const S> k, View<const S> v,
                                const AttentionShape& a, View<S> out, View<S> lse) {
  if (this->delegated(Operation::attention, &AttentionOps::attention, q, k, v, a, out, lse))
    return;
  const Index d = a.head_dim;
  const Index dv = a.value_columns();
  std::vector<double> sum(std::size_t(dv), 0.0);
  for_queries(a, [&](Index t, Index h, Index first, Index last) {
    const Index g = h / (a.heads / a.kv_heads);
    double top = -std::numeric_limits<double>::infinity();
    double total = 0;
    for (Index j = first; j < last; ++j)
      top = std::fmax(top, a.scale * row_dot(&q(t, h * d), &k(j, g * d), d));
    std::ranges::fill(sum, 0.0);
    for (Index j = first; j < last; ++j) {
      const double p = std::exp(a.scale * row_dot(&q(t, h * d), &k(j, g * d), d) - top);
      total += p;
      for (Index i = 0; i < dv; ++i)
        sum[i] += p * double(v(j, g * dv + i));
    }
    for (Index i = 0; i < dv; ++i)
      out(t, h * dv + i) = S(sum[i] / total);
    lse(t, h) = S(top + std::log(total));
  });
}
template <class S>
void AttentionOps<S>::attention_backward(View<const S> q, View<const S> k, View<const S> v,
                                         View<const S> out, View<const S> lse, View<const S> dout,
                                         const AttentionShape& a, View<S> dq, View<S> dk,
                                         View<S> dv) {
  if (this->delegated(Operation::attention_backward, &AttentionOps::attention_backward, q, k, v,
                      out, lse, dout, a, dq, dk, dv)) {
    return;
  }
  const Index d = a.head_dim;
  const Index n = a.value_columns();
  for (auto& m : {dq, dk, dv})
    std::ranges::fill(m.flat(), S(0));
  for_queries(a, [&](Index t, Index h, Index first, Index last) {
    const Index g = h / (a.heads / a.kv_heads);
    const double delta = row_dot(&out(t, h * n), &dout(t, h * n), n);
    for (Index j = first; j < last; ++j) {
      const double p =
          std::exp(a.scale * row_dot(&q(t, h * d), &k(j, g * d), d) - double(lse(t, h)));
      const double ds = p * (row_dot(&dout(t, h * n), &v(j, g * n), n) - delta) * a.scale;
      for (Index i = 0; i < n; ++i)
        dv(j, g * n + i) += S(p * double(dout(t, h * n + i)));
      for (Index i = 0; i < d; ++i) {
        dq(t, h * d + i) += S(ds * double(k(j, g * d + i)));
        dk(j, g * d + i) += S(ds * double(q(t, h * d + i)));
      }
    }
  });
}

// With the sink's e^s in the denominator: lse' = log(e^lse + e^s), out' = out e^(lse - lse').
template <class S>
void AttentionOps<S>::attention_sink(View<const S> sink, View<S> out, View<S> lse) {
  if (this->delegated(Operation::attention_sink, &AttentionOps::attention_sink, sink, out, lse))
    return;
  const Index d = out.cols / lse.cols;
  for (Index t = 0; t < out.rows; ++t) {
    for (Index h = 0; h < lse.cols; ++h) {
      const double before = double(lse(t, h));
      const double s = double(sink(0, h));
      const double top = std::fmax(before, s);
      const double after = top + std::log(std::exp(before - top) + std::exp(s - top));
      for (Index i = 0; i < d; ++i)
        out(t, h * d + i) = S(double(out(t, h * d + i)) * std::exp(before - after));
      lse(t, h) = S(after);
    }
  }
}
template <class S>
void AttentionOps<S>::attention_sink_backward(View<const S> sink, View<const S> out,
                                              View<const S> lse, View<const S> dout,
                                              View<S> dsink) {
  if (this->delegated(Operation::attention_sink_backward, &AttentionOps::attention_sink_backward,
                      sink, out, lse, dout, dsink)) {
    return;
  }
  const Index d = out.cols / lse.cols;
  for (Index h = 0; h < lse.cols; ++h) {
    double sum = 0;
    for (Index t = 0; t < out.rows; ++t) {
      for (Index i = 0; i < d; ++i) {
        sum -= std::exp(double(sink(0, h)) - double(lse(t, h))) * double(out(t, h * d + i)) *
               double(dout(t, h * d + i));
      }
    }
    dsink(0, h) += S(sum);
  }
}

template class AttentionOps<float>;
template class AttentionOps<double>;

}  // namespace moe
