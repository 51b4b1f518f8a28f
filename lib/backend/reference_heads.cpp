// What is done to heads on their way to attention and back, by definition: turning, clamping,
// joining, centring, sinks.
#include <algorithm>
#include <cmath>

#include "lib/backend/reference.h"

namespace moe {

template <class S>
void Reference<S>::center(View<S> x) {
  for (Index t = 0; t < x.rows; ++t) {
    double sum = 0;
    for (const S v : x.row(t))
      sum += double(v);
    for (S& v : x.row(t))
      v = S(double(v) - sum / double(x.cols));
  }
}
template <class S>
void Reference<S>::clamp(View<S> x, double limit) {
  for (S& v : x.flat())
    v = v > S(limit) ? S(limit) : v < S(-limit) ? S(-limit) : v;
}
template <class S>
void Reference<S>::clamp_backward(View<const S> y, double limit, View<S> dy) {
  for (Index i = 0; i < y.size(); ++i) {
    if (std::abs(y.data[i]) >= S(limit))
      dy.data[i] = 0;
  }
}

template <class S>
void Reference<S>::rope(View<S> x, const Rotation& r, View<const int> position, bool transposed) {
  const Index pairs = Index(r.frequency.size());
  const Index step = r.interleaved ? 2 : 1;
  const Index apart = r.interleaved ? 1 : pairs;
  for (Index t = 0; t < x.rows; ++t) {
    for (Index h = 0; h < x.cols / r.head_dim; ++h) {
      for (Index j = 0; j < pairs; ++j) {
        const double angle =
            double(position(0, t)) * r.frequency[std::size_t(j)] * (transposed ? -1 : 1);
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
void Reference<S>::join_heads(View<const S> a, View<const S> b, int heads, View<S> y) {
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
void Reference<S>::split_heads(View<const S> y, int heads, View<S> a, View<S> b) {
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

// With the sink's e^s in the denominator: lse' = log(e^lse + e^s), out' = out e^(lse - lse').
template <class S>
void Reference<S>::attention_sink(View<const S> sink, View<S> out, View<S> lse) {
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
void Reference<S>::attention_sink_backward(View<const S> sink, View<const S> out, View<const S> lse,
                                           View<const S> dout, View<S> dsink) {
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

template class Reference<float>;
template class Reference<double>;

}  // namespace moe
