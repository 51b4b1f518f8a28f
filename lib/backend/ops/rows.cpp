#include "lib/backend/ops/rows.h"

#include <cmath>

#include "lib/backend/delegate.h"

namespace moe {

template <class S>
void RowOps<S>::activate(Activation a, View<const S> gate, View<const S> up, View<S> h) {
  if (this->delegated(Operation::activate, &RowOps::activate, a, gate, up, h))
    return;
  for (Index i = 0; i < up.size(); ++i)
    h.data[i] = body(a, gate.empty() ? S(0) : gate.data[i], up.data[i]).h;
}
template <class S>
void RowOps<S>::activate_backward(Activation a, View<const S> gate, View<const S> up,
                                  const Plan& plan, View<const S> weight, View<const S> share,
                                  View<S> dh, View<S> dgate, View<S> dup, View<S> dweight) {
  if (this->delegated(Operation::activate_backward, &RowOps::activate_backward, a, gate, up, plan,
                      weight, share, dh, dgate, dup, dweight)) {
    return;
  }
  for (S& v : dweight.flat())
    v = 0;
  for (Index s = 0; s < plan.slots; ++s) {
    const int choice = plan.choice.view()(0, s);
    const S w = weight.empty() ? S(1) : weight.data[choice];
    double dot = share.empty() ? 0 : double(share(s, 0));
    for (Index i = 0; i < up.cols; ++i) {
      const Body<S> b = body(a, gate.empty() ? S(0) : gate(s, i), up(s, i));
      const S d = dh(s, i);
      dot += double(d) * double(b.h);
      dup(s, i) = w * d * b.dup;
      if (!dgate.empty())
        dgate(s, i) = w * d * b.dgate;
      dh(s, i) = w * b.h;
    }
    if (!dweight.empty())
      dweight.data[choice] = S(dot);
  }
}
template <class S>
void RowOps<S>::norm(View<const S> x, View<const S> w, double eps, View<S> y, View<S> rstd) {
  if (this->delegated(Operation::norm, &RowOps::norm, x, w, eps, y, rstd))
    return;
  const Index n = w.cols;
  for (Index r = 0; r < x.size() / n; ++r) {
    double square = 0;
    for (Index i = 0; i < n; ++i)
      square += double(x.data[r * n + i]) * double(x.data[r * n + i]);
    const double scale = 1 / std::sqrt(square / double(n) + eps);
    rstd.data[r] = S(scale);
    for (Index i = 0; i < n; ++i)
      y.data[r * n + i] = S(double(x.data[r * n + i]) * scale) * w(0, i);
  }
}
template <class S>
void RowOps<S>::norm_backward(View<const S> dy, View<const S> x, View<const S> w,
                              View<const S> rstd, View<S> dx, View<S> dw, S beta) {
  if (this->delegated(Operation::norm_backward, &RowOps::norm_backward, dy, x, w, rstd, dx, dw,
                      beta)) {
    return;
  }
  const Index n = w.cols;
  for (Index r = 0; r < x.size() / n; ++r) {
    const S* gy = dy.data + r * n;
    const S* gx = x.data + r * n;
    const double scale = double(rstd.data[r]);
    double dot = 0;
    for (Index i = 0; i < n; ++i)
      dot += double(gy[i]) * double(w(0, i)) * double(gx[i]);
    for (Index i = 0; i < n; ++i) {
      const double d = scale * (double(gy[i]) * double(w(0, i)) -
                                double(gx[i]) * scale * scale * dot / double(n));
      S& out = dx.data[r * n + i];
      out = S(d) + (beta == 0 ? S(0) : beta * out);
    }
  }
  for (Index i = 0; i < n && !dw.empty(); ++i) {
    double sum = 0;
    for (Index r = 0; r < x.size() / n; ++r)
      sum += double(dy.data[r * n + i]) * double(x.data[r * n + i]) * double(rstd.data[r]);
    dw(0, i) += S(sum);
  }
}
template <class S>
void RowOps<S>::center(View<S> x) {
  if (this->delegated(Operation::center, &RowOps::center, x))
    return;
  for (Index t = 0; t < x.rows; ++t) {
    double sum = 0;
    for (const S v : x.row(t))
      sum += double(v);
    for (S& v : x.row(t))
      v = S(double(v) - sum / double(x.cols));
  }
}
template <class S>
void RowOps<S>::clamp(View<S> x, double limit) {
  if (this->delegated(Operation::clamp, &RowOps::clamp, x, limit))
    return;
  for (S& v : x.flat())
    v = v > S(limit) ? S(limit) : v < S(-limit) ? S(-limit) : v;
}
template <class S>
void RowOps<S>::softcap(View<S> x, double cap) {
  if (this->delegated(Operation::softcap, &RowOps::softcap, x, cap))
    return;
  for (S& v : x.flat())
    v = S(cap * std::tanh(double(v) / cap));
}
template <class S>
void RowOps<S>::softcap_backward(View<const S> y, double cap, View<S> dy) {
  if (this->delegated(Operation::softcap_backward, &RowOps::softcap_backward, y, cap, dy))
    return;
  for (Index i = 0; i < y.size(); ++i) {
    const double share = double(y.data[i]) / cap;
    dy.data[i] = S(double(dy.data[i]) * (1 - share * share));
  }
}
template <class S>
void RowOps<S>::clamp_backward(View<const S> y, double limit, View<S> dy) {
  if (this->delegated(Operation::clamp_backward, &RowOps::clamp_backward, y, limit, dy))
    return;
  for (Index i = 0; i < y.size(); ++i) {
    if (std::abs(y.data[i]) >= S(limit))
      dy.data[i] = 0;
  }
}
template <class S>
void RowOps<S>::add(View<const S> x, View<S> y, S scale) {
  if (this->delegated(Operation::add, &RowOps::add, x, y, scale))
    return;
  for (Index i = 0; i < y.size(); ++i)
    y.data[i] += scale * x.data[i];
}
template <class S>
void RowOps<S>::sigmoid_gate(View<const S> gate, View<const S> x, View<S> y) {
  if (this->delegated(Operation::sigmoid_gate, &RowOps::sigmoid_gate, gate, x, y))
    return;
  for (Index t = 0; t < y.rows; ++t) {
    for (Index h = 0; h < y.cols; ++h)
      y(t, h) += x(t, h) / (S(1) + std::exp(-gate(t, 0)));
  }
}
template <class S>
void RowOps<S>::sigmoid_gate_backward(View<const S> dy, View<const S> gate, View<const S> x,
                                      View<S> dgate, View<S> dx) {
  if (this->delegated(Operation::sigmoid_gate_backward, &RowOps::sigmoid_gate_backward, dy, gate, x,
                      dgate, dx)) {
    return;
  }
  for (Index t = 0; t < dy.rows; ++t) {
    const double s = 1 / (1 + std::exp(-double(gate(t, 0))));
    double dot = 0;
    for (Index h = 0; h < dy.cols; ++h) {
      dot += double(dy(t, h)) * double(x(t, h));
      dx(t, h) = S(s) * dy(t, h);
    }
    dgate(t, 0) = S(dot * s * (1 - s));
  }
}

template class RowOps<float>;
template class RowOps<double>;

}  // namespace moe
