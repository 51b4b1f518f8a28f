#include "lib/backend/reference.h"

#include <cmath>
#include <limits>

namespace moe {

// ---- products --------------------------------------------------------------------------------

template <class S>
void Reference<S>::linear(View<const S> x, const Weight& weight, View<S> y, S beta) {
  const View<const S> w = plain<S>(weight);
  for (Index t = 0; t < x.rows; ++t) {
    for (Index o = 0; o < w.rows; ++o) {
      double sum = 0;
      for (Index i = 0; i < w.cols; ++i)
        sum += double(x(t, i)) * double(w(o, i));
      y(t, o) = S(sum) + (beta == 0 ? S(0) : beta * y(t, o));
    }
  }
}
template <class S>
void Reference<S>::linear_dx(View<const S> dy, const Weight& weight, View<S> dx, S beta) {
  const View<const S> w = plain<S>(weight);
  for (Index t = 0; t < dy.rows; ++t) {
    for (Index i = 0; i < w.cols; ++i) {
      double sum = 0;
      for (Index o = 0; o < w.rows; ++o)
        sum += double(dy(t, o)) * double(w(o, i));
      dx(t, i) = S(sum) + (beta == 0 ? S(0) : beta * dx(t, i));
    }
  }
}
template <class S>
void Reference<S>::linear_dw(View<const S> dy, View<const S> x, View<S> dw) {
  for (Index o = 0; o < dw.rows; ++o) {
    for (Index i = 0; i < dw.cols; ++i) {
      double sum = 0;
      for (Index t = 0; t < x.rows; ++t)
        sum += double(dy(t, o)) * double(x(t, i));
      dw(o, i) += S(sum);
    }
  }
}
template <class S>
void Reference<S>::add_bias(View<const S> b, View<S> y) {
  for (Index t = 0; t < y.rows; ++t) {
    for (Index o = 0; o < y.cols; ++o)
      y(t, o) += b(0, o);
  }
}
template <class S>
void Reference<S>::bias_grad(View<const S> dy, View<S> db) {
  for (Index o = 0; o < dy.cols; ++o) {
    double sum = 0;
    for (Index t = 0; t < dy.rows; ++t)
      sum += double(dy(t, o));
    db(0, o) += S(sum);
  }
}

// ---- the same for each expert's rows ---------------------------------------------------------

namespace {
// Calls each(e, first, count) for every expert that has rows.
template <class Each>
void for_experts(const Plan& plan, Each each) {
  const View<const int> offset = plan.offset.view();
  for (Index e = 0; e < plan.experts(); ++e) {
    if (const Index first = offset(0, e), count = offset(0, e + 1) - first; count > 0)
      each(e, first, count);
  }
}
template <class S>
Weight block(const Weight& w, Index e, Index experts) {
  return Weight(plain<S>(w).block(e, w.rows / experts));
}
}  // namespace

template <class S>
void Reference<S>::grouped_linear(View<const S> x, const Weight& w, const Plan& plan, View<S> y,
                                  S beta) {
  for_experts(plan, [&](Index e, Index first, Index count) {
    linear(x.slice(first, count), block<S>(w, e, plan.experts()), y.slice(first, count), beta);
  });
}
template <class S>
void Reference<S>::grouped_linear_dx(View<const S> dy, const Weight& w, const Plan& plan,
                                     View<S> dx, S beta) {
  for_experts(plan, [&](Index e, Index first, Index count) {
    linear_dx(dy.slice(first, count), block<S>(w, e, plan.experts()), dx.slice(first, count), beta);
  });
}
template <class S>
void Reference<S>::grouped_linear_dw(View<const S> dy, View<const S> x, const Plan& plan,
                                     View<S> dw) {
  for_experts(plan, [&](Index e, Index first, Index count) {
    linear_dw(dy.slice(first, count), x.slice(first, count), dw.block(e, dw.rows / plan.experts()));
  });
}
template <class S>
void Reference<S>::grouped_add_bias(View<const S> b, const Plan& plan, View<S> y) {
  for_experts(plan, [&](Index e, Index first, Index count) {
    add_bias(b.slice(e, 1), y.slice(first, count));
  });
}
template <class S>
void Reference<S>::grouped_bias_grad(View<const S> dy, const Plan& plan, View<S> db) {
  for_experts(plan, [&](Index e, Index first, Index count) {
    bias_grad(dy.slice(first, count), db.slice(e, 1));
  });
}

// ---- who goes where --------------------------------------------------------------------------

template <class S>
Plan Reference<S>::plan(View<const int> kept, int experts) {
  Plan p;
  p.place = Array<int>(*this, kept.rows, kept.cols);
  p.offset = Array<int>::zeros(*this, 1, experts + 1);
  const View<int> place = p.place.view();
  const View<int> offset = p.offset.view();
  for (const int e : kept.flat()) {
    if (e >= 0)
      ++offset(0, e + 1);
  }
  for (int e = 0; e < experts; ++e)
    offset(0, e + 1) += offset(0, e);
  p.slots = offset(0, experts);
  p.token = Array<int>(*this, 1, p.slots);
  p.choice = Array<int>(*this, 1, p.slots);
  std::vector<int> next(offset.data, offset.data + experts);
  for (Index i = 0; i < kept.size(); ++i) {  // token by token, then rank by rank
    const int e = kept.data[i];
    const int slot = e < 0 ? -1 : next[std::size_t(e)]++;
    place.data[i] = slot;
    if (slot < 0)
      continue;
    p.token.view()(0, slot) = int(i / kept.cols);
    p.choice.view()(0, slot) = int(i);
  }
  return p;
}
template <class S>
void Reference<S>::dispatch(View<const S> x, const Plan& plan, View<S> xs) {
  for (Index s = 0; s < plan.slots; ++s)
    std::ranges::copy(x.row(plan.token.view()(0, s)), xs.row(s).begin());
}
template <class S>
void Reference<S>::combine(View<const S> ys, const Plan& plan, View<const S> weight, View<S> y,
                           S beta) {
  const View<const int> place = plan.place.view();
  for (Index t = 0; t < y.rows; ++t) {
    for (Index h = 0; h < y.cols; ++h) {
      double sum = beta == 0 ? 0 : double(beta) * double(y(t, h));
      for (Index k = 0; k < place.cols; ++k) {
        if (const int s = place(t, k); s >= 0)
          sum += (weight.empty() ? 1.0 : double(weight(t, k))) * double(ys(s, h));
      }
      y(t, h) = S(sum);
    }
  }
}
template <class S>
void Reference<S>::combine_backward(View<const S> dy, View<const S> ys, const Plan& plan,
                                    View<const S> weight, View<S> dys, View<S> dweight) {
  const View<const int> place = plan.place.view();
  for (Index t = 0; t < dy.rows; ++t) {
    for (Index k = 0; k < place.cols; ++k) {
      const int s = place(t, k);
      double dot = 0;
      for (Index h = 0; s >= 0 && h < dy.cols; ++h) {
        dot += double(dy(t, h)) * (dweight.empty() ? 0.0 : double(ys(s, h)));
        dys(s, h) = weight.empty() ? dy(t, h) : weight(t, k) * dy(t, h);
      }
      if (!dweight.empty())
        dweight(t, k) = S(dot);
    }
  }
}
template <class S>
void Reference<S>::scale_slots(View<S> xs, const Plan& plan, View<const S> weight) {
  for (Index s = 0; s < plan.slots; ++s) {
    for (S& v : xs.row(s))
      v *= weight.data[plan.choice.view()(0, s)];
  }
}

// ---- row by row ------------------------------------------------------------------------------

template <class S>
void Reference<S>::activate(Activation a, View<const S> gate, View<const S> up, View<S> h) {
  for (Index i = 0; i < up.size(); ++i)
    h.data[i] = body(a, gate.empty() ? S(0) : gate.data[i], up.data[i]).h;
}
template <class S>
void Reference<S>::activate_backward(Activation a, View<const S> gate, View<const S> up,
                                     const Plan& plan, View<const S> weight, View<const S> share,
                                     View<S> dh, View<S> dgate, View<S> dup, View<S> dweight) {
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
void Reference<S>::norm(View<const S> x, View<const S> w, double eps, View<S> y, View<S> rstd) {
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
void Reference<S>::norm_backward(View<const S> dy, View<const S> x, View<const S> w,
                                 View<const S> rstd, View<S> dx, View<S> dw, S beta) {
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
void Reference<S>::add(View<const S> x, View<S> y, S scale) {
  for (Index i = 0; i < y.size(); ++i)
    y.data[i] += scale * x.data[i];
}
template <class S>
void Reference<S>::sigmoid_gate(View<const S> gate, View<const S> x, View<S> y) {
  for (Index t = 0; t < y.rows; ++t) {
    for (Index h = 0; h < y.cols; ++h)
      y(t, h) += x(t, h) / (S(1) + std::exp(-gate(t, 0)));
  }
}
template <class S>
void Reference<S>::sigmoid_gate_backward(View<const S> dy, View<const S> gate, View<const S> x,
                                         View<S> dgate, View<S> dx) {
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

// ---- tokens ----------------------------------------------------------------------------------

template <class S>
void Reference<S>::embed(const Weight& table, View<const int> id, View<S> y) {
  for (Index t = 0; t < y.rows; ++t)
    std::ranges::copy(plain<S>(table).row(id(0, t)), y.row(t).begin());
}
template <class S>
void Reference<S>::embed_backward(View<const S> dy, View<const int> id, View<S> dtable) {
  for (Index t = 0; t < dy.rows; ++t) {
    for (Index h = 0; h < dy.cols; ++h)
      dtable(id(0, t), h) += dy(t, h);
  }
}
template <class S>
void Reference<S>::cross_entropy(View<S> z, View<const int> target, View<S> loss, S scale,
                                 bool backward) {
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

// ---- optimiser -------------------------------------------------------------------------------

template <class S>
void Reference<S>::adamw(View<S> value, View<S> grad, View<S> m, View<S> v, const AdamW& o) {
  const double c1 = 1 - std::pow(o.beta1, double(o.step));
  const double c2 = 1 - std::pow(o.beta2, double(o.step));
  for (Index i = 0; i < value.size(); ++i) {
    const double g = double(grad.data[i]) * o.grad_scale;
    const double m1 = o.beta1 * double(m.data[i]) + (1 - o.beta1) * g;
    const double v1 = o.beta2 * double(v.data[i]) + (1 - o.beta2) * g * g;
    m.data[i] = S(m1);
    v.data[i] = S(v1);
    const double old = double(value.data[i]);
    value.data[i] = S(old - o.lr * (m1 / c1 / (std::sqrt(v1 / c2) + o.eps) + o.decay * old));
  }
}
template <class S>
double Reference<S>::sum_squares(View<const S> x) {
  double sum = 0;
  for (const S v : x.flat())
    sum += double(v) * double(v);
  return sum;
}

template <class S>
std::unique_ptr<Backend<S>> make_reference() {
  return std::make_unique<Reference<S>>();
}
template std::unique_ptr<Backend<float>> make_reference<float>();
template std::unique_ptr<Backend<double>> make_reference<double>();
std::unique_ptr<Backend<float>> make_reference_backend(Spec&) {
  return make_reference<float>();
}

template class Reference<float>;
template class Reference<double>;

}  // namespace moe
