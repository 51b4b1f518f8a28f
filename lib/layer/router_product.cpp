#include "lib/layer/router_product.h"

#include <cmath>
#include <utility>

#include "lib/backend/host_memory.h"
#include "lib/core/convert.h"
#include "lib/core/error.h"

namespace moe {
namespace {

constexpr double cosine_eps = 1e-6;

void divide(Matrix<double>& m, double by) {
  parallel_for(m.size(), numbers_at_once, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i)
      m.data()[i] /= by;
  });
}

template <class S>
Matrix<S> to_host(Backend<S>& backend, View<const S> m) {
  Matrix<S> host = Matrix<S>::unset(m.rows, m.cols);
  backend.to_host(m.data, host.data(), std::size_t(m.size()) * sizeof(S));
  return host;
}
template <class S>
bool on_host(const Backend<S>& backend) {
  return dynamic_cast<const HostBackend<S>*>(&backend) != nullptr;
}
template <class S>
Array<S> to_device(Backend<S>& backend, const Matrix<double>& m) {
  if (!on_host(backend)) {
    const Matrix<S> host = converted<S>(m);
    return Array<S>(backend, host.view());
  }
  Array<S> out(backend, m.rows(), m.cols());
  convert(m.view(), out.view());
  return out;
}
// Scores, in double.
template <class S>
Matrix<double> in_double(const Backend<S>& backend, const Array<S>& z) {
  return on_host(backend) ? converted<double>(z.view()) : converted<double>(z.to_host());
}
template <class S>
std::vector<double> norms(const Matrix<S>& m) {
  std::vector<double> out;
  for (Index i = 0; i < m.rows(); ++i) {
    double sum = cosine_eps;
    for (const S v : m.row(i))
      sum += double(v) * double(v);
    out.push_back(std::sqrt(sum));
  }
  return out;
}

// -sum_r/|m_r|^2 m_r, row by row: what the norms in a cosine give back.
template <class S>
Matrix<S> along(const Matrix<S>& m, const std::vector<double>& sum,
                const std::vector<double>& norm) {
  Matrix<S> out(m.rows(), m.cols());
  for (Index r = 0; r < m.rows(); ++r) {
    for (Index c = 0; c < m.cols(); ++c) {
      out(r, c) = S(-sum[r] / (norm[r] * norm[r]) * double(m(r, c)));
    }
  }
  return out;
}

}  // namespace

template <class S>
RouterProduct<S>::RouterProduct(Backend<S>& b, const Projection& p, Index hidden, bool bias,
                                bool residual)
    : what_(p), backend_(&b) {
  const Index inner = p.through > 0 ? p.through : hidden;
  weight_ = Parameter<S>(b, "router." + p.name, {p.rows, inner});
  if (p.through > 0)
    project_ = Parameter<S>(b, "router.project", {p.through, hidden});
  if (p.cosine)
    scale_ = Parameter<S>(b, "router." + p.scale_name, {1}, ParameterKind::vector);
  if (bias)
    bias_ = Parameter<S>(b, "router.bias", {p.rows}, ParameterKind::vector);
  if (residual)
    residual_ = Parameter<S>(b, "router.residual_weight", {p.rows, p.rows});
}

template <class S>
void RouterProduct<S>::collect(std::vector<Parameter<S>*>& all) {
  for (Parameter<S>* p : {&weight_, &bias_, &residual_, &scale_, &project_}) {
    if (!p->empty())
      all.push_back(p);
  }
}

template <class S>
Array<S> RouterProduct<S>::logits(View<const S> x) const {
  Array<S> z(*backend_, x.rows, what_.rows);
  backend_->linear(x, weight_.weight().in_full(), z.view(), 0);
  if (!bias_.empty())
    backend_->add_bias(bias_.value(), z.view());
  return z;
}
template <class S>
void RouterProduct<S>::logits_backward(View<const S> x, View<const S> dz, View<S> dx) {
  if (!weight_.grad().empty())
    backend_->linear_dw(dz, x, weight_.grad());
  if (!bias_.grad().empty())
    backend_->bias_grad(dz, bias_.grad());
  backend_->linear_dx(dz, weight_.weight().in_full(), dx, 1);
}

template <class S>
Matrix<double> RouterProduct<S>::forward(View<const S> x, double tau,
                                         const Matrix<double>* previous, Tape& t) const {
  View<const S> u = x;
  if (!project_.empty()) {
    t.through = Array<S>(*backend_, x.rows, what_.through);
    backend_->linear(x, project_.weight().in_full(), t.through.view(), 0);
    u = std::as_const(t.through).view();
  }
  Array<S> z = logits(u);
  Matrix<double> out = in_double(*backend_, z);
  if (what_.cosine)
    to_cosine(u, out, t);
  if (!residual_.empty()) {
    if (!previous || previous->rows() != x.rows || previous->cols() != what_.rows) {
      throw Error(Exit::bug,
                  concat("a layer with a gate residual got no logits of the layer before, (",
                         x.rows, ",", what_.rows, ")"));
    }
    const Array<S> before = to_device<S>(*backend_, *previous);
    backend_->linear(before.view(), residual_.weight().in_full(), z.view(), 0);
    const Matrix<S> more = z.to_host();
    for (Index i = 0; i < more.size(); ++i)
      out.data()[i] += double(more.data()[i]);
  }
  if (tau != 1)
    divide(out, tau);
  return out;
}

template <class S>
void RouterProduct<S>::to_cosine(View<const S> u, Matrix<double>& z, Tape& t) const {
  t.raw = z;
  t.u_norm = norms(to_host(*backend_, u));
  t.w_norm = norms(weight_.to_host());
  const double a = double(scale_.to_host()(0, 0));
  for (Index n = 0; n < z.rows(); ++n) {
    for (Index i = 0; i < z.cols(); ++i)
      z(n, i) *= a / (t.u_norm[n] * t.w_norm[i]);
  }
}

// With c = a u.w/(|u||w|): what arrives at u.w is dz a/(|u||w|); the norms give -(sum dz c)/|u|^2
// u, and the same for w.
template <class S>
Matrix<S> RouterProduct<S>::cosine_backward(View<const S> u, const Tape& t, Matrix<double>& dz) {
  const double a = double(scale_.to_host()(0, 0));
  const Matrix<S> host_u = to_host(*backend_, u);
  const Matrix<S> host_w = weight_.to_host();
  std::vector<double> by_u(std::size_t(dz.rows()), 0.0);
  std::vector<double> by_w(std::size_t(dz.cols()), 0.0);
  double da = 0;
  for (Index n = 0; n < dz.rows(); ++n) {
    for (Index i = 0; i < dz.cols(); ++i) {
      const double norm = t.u_norm[n] * t.w_norm[i];
      const double cosine = t.raw(n, i) / norm;
      da += dz(n, i) * cosine;
      by_u[n] += dz(n, i) * a * cosine;
      by_w[i] += dz(n, i) * a * cosine;
      dz(n, i) *= a / norm;
    }
  }
  if (!weight_.grad().empty()) {
    const Matrix<S> dw = along(host_w, by_w, t.w_norm);
    backend_->add(Array<S>(*backend_, dw.view()).view(), weight_.grad(), 1);
  }
  if (!scale_.grad().empty()) {
    const Matrix<S> one(1, 1, S(da));
    backend_->add(Array<S>(*backend_, one.view()).view(), scale_.grad(), 1);
  }
  return along(host_u, by_u, t.u_norm);
}

template <class S>
void RouterProduct<S>::residual_backward(const Matrix<double>& previous, const Matrix<double>& dz,
                                         Matrix<double>* dprevious) {
  const Array<S> d = to_device<S>(*backend_, dz);
  const Array<S> before = to_device<S>(*backend_, previous);
  if (!residual_.grad().empty())
    backend_->linear_dw(d.view(), before.view(), residual_.grad());
  Array<S> back(*backend_, dz.rows(), dz.cols());
  backend_->linear_dx(d.view(), residual_.weight().in_full(), back.view(), 0);
  const Matrix<S> host = back.to_host();
  for (Index i = 0; i < host.size() && dprevious; ++i)
    dprevious->data()[i] += double(host.data()[i]);
}

template <class S>
void RouterProduct<S>::backward(View<const S> x, double tau, const Matrix<double>* previous,
                                const Tape& t, Matrix<double> dz, View<S> dx,
                                Matrix<double>* dprevious) {
  if (tau != 1)
    divide(dz, tau);
  if (!residual_.empty())
    residual_backward(*previous, dz, dprevious);
  const View<const S> u = project_.empty() ? x : t.through.view();
  Matrix<S> besides;
  if (what_.cosine)
    besides = cosine_backward(u, t, dz);
  const Array<S> d = to_device<S>(*backend_, dz);
  if (!what_.cosine)
    return logits_backward(u, d.view(), dx);
  Array<S> du(*backend_, std::as_const(besides).view());
  logits_backward(u, d.view(), du.view());
  if (project_.empty())
    return backend_->add(std::as_const(du).view(), dx, 1);
  if (!project_.grad().empty())
    backend_->linear_dw(std::as_const(du).view(), x, project_.grad());
  backend_->linear_dx(std::as_const(du).view(), project_.weight().in_full(), dx, 1);
}

// A slot has one number, the gradient of its logit, and each row of the weight is an expert's.
template <class S>
void RouterProduct<S>::chosen_backward(View<const S> x, double tau, const Matrix<int>& expert,
                                       Matrix<double> dz, View<S> dx) {
  if (tau != 1)
    divide(dz, tau);
  const Array<int> ids(*backend_, expert.view());
  const Array<S> by_choice = to_device<S>(*backend_, dz);
  if (!weight_.grad().empty()) {
    const Plan plan = backend_->plan(ids.view(), int(what_.rows));
    const Matrix<int> choice = plan.choice.to_host();
    Matrix<double> by_slot = Matrix<double>::unset(plan.slots, 1);
    for (Index s = 0; s < plan.slots; ++s)
      by_slot(s, 0) = dz.data()[choice(0, s)];
    Array<S> rows(*backend_, plan.slots, x.cols);
    backend_->dispatch(x, plan, rows.view());
    backend_->grouped_linear_dw(to_device<S>(*backend_, by_slot).view(), rows.view(), plan,
                                weight_.grad());
  }
  Plan of_experts;  // the rows of the weight in place of slots
  of_experts.place = Array<int>(*backend_, expert.view());
  backend_->combine(weight_.value(), of_experts, by_choice.view(), dx, 1);
}

template class RouterProduct<float>;
template class RouterProduct<double>;

}  // namespace moe
