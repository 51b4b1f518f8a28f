#include "lib/layer/zero_computation_experts.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace moe {
namespace {

// (a1, a2) = softmax(Wc x), Wc the rows 2e and 2e+1 of gate.
template <class S>
std::pair<double, double> shares(const Matrix<S>& gate, int expert, std::span<const S> x) {
  double z[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    for (std::size_t h = 0; h < x.size(); ++h)
      z[i] += double(gate(2 * expert + i, Index(h))) * double(x[h]);
  }
  const double a = 1 / (1 + std::exp(z[1] - z[0]));
  return {a, 1 - a};
}

// d, the gradient of the output a1 x + a2 v, becomes that of x; adds to those of Wc and v.
template <class S>
void constant_backward(int e, std::span<const S> x, std::span<S> d, const Matrix<S>& gate,
                       const Matrix<S>& vec, Matrix<S>& dgate, Matrix<S>& dvec) {
  const auto [a, b] = shares(gate, e, x);
  double da = 0;
  double db = 0;
  for (std::size_t h = 0; h < d.size(); ++h) {
    da += double(d[h]) * double(x[h]);
    db += double(d[h]) * double(vec(e, Index(h)));
  }
  const double dz = a * b * (da - db);  // of the first; the second's is minus that
  for (std::size_t i = 0; i < d.size(); ++i) {
    const Index h = Index(i);
    const double g = double(d[i]);
    const double xh = double(x[i]);
    dvec(e, h) += S(b * g);
    dgate(2 * e, h) += S(dz * xh);
    dgate(2 * e + 1, h) -= S(dz * xh);
    d[i] = S(a * g + dz * double(gate(2 * e, h) - gate(2 * e + 1, h)));
  }
}

}  // namespace

template <class S>
ZeroComputationExperts<S>::ZeroComputationExperts(Backend<S>& b, const LayerConfig& c)
    : backend_(&b) {
  if (c.all_ffn())
    return;
  types_ = c.types;
  if (std::ranges::find(types_, ExpertKind::constant) == types_.end())
    return;
  gate_ = Parameter<S>(b, "experts.const_gate", {c.experts, 2, c.hidden});
  vec_ = Parameter<S>(b, "experts.const_vec", {c.experts, c.hidden}, ParameterKind::vector);
}

template <class S>
void ZeroComputationExperts<S>::collect(std::vector<Parameter<S>*>& all) {
  for (Parameter<S>* p : {&gate_, &vec_}) {
    if (!p->empty())
      all.push_back(p);
  }
}

template <class S>
void ZeroComputationExperts<S>::compute(int expert, std::span<const S> x, std::span<S> out,
                                        const Matrix<S>& gate, const Matrix<S>& vec) const {
  const ExpertKind kind = types_[expert];
  if (kind == ExpertKind::zero)
    return void(std::ranges::fill(out, S(0)));
  if (kind == ExpertKind::copy)
    return void(std::ranges::copy(x, out.begin()));
  const auto [a, b] = shares(gate, expert, x);
  for (std::size_t h = 0; h < x.size(); ++h)
    out[h] = S(a * double(x[h]) + b * double(vec(expert, Index(h))));
}

template <class S>
Matrix<int> ZeroComputationExperts<S>::computed(const Matrix<int>& kept) const {
  Matrix<int> mine = kept;  // zero experts add nothing and get nothing back
  for (int& e : mine.flat()) {
    if (e >= 0 && (types_[e] == ExpertKind::ffn || types_[e] == ExpertKind::zero)) {
      e = -1;
    }
  }
  return mine;
}

template <class S>
void ZeroComputationExperts<S>::forward(View<const S> x, const Matrix<int>& kept,
                                        View<const S> weight, View<S> y, Tape& t) const {
  const Matrix<int> mine = computed(kept);
  const Array<int> device(*backend_, mine.view());
  t.plan = backend_->plan(device.view(), int(types_.size()));
  if (t.plan.slots == 0)
    return;
  t.out = Array<S>(*backend_, t.plan.slots, x.cols);
  backend_->dispatch(x, t.plan, t.out.view());
  t.rows = t.out.to_host();
  const Matrix<int> offset = t.plan.offset.to_host();
  t.expert.assign(std::size_t(t.plan.slots), -1);
  const Matrix<S> gate = gate_.to_host();
  const Matrix<S> vec = vec_.to_host();
  Matrix<S> out(t.rows.rows(), t.rows.cols());
  for (int e = 0; e < int(types_.size()); ++e) {
    for (Index s = offset(0, e); s < offset(0, e + 1); ++s) {
      t.expert[s] = e;
      compute(e, std::as_const(t.rows).row(s), out.row(s), gate, vec);
    }
  }
  t.out.set(std::as_const(out).view());
  backend_->combine(t.out.view(), t.plan, weight, y, 1);
}

template <class S>
void ZeroComputationExperts<S>::backward(const Tape& t, View<const S> dy, View<const S> weight,
                                         View<S> dx, View<S> dweight) {
  if (t.plan.slots == 0)
    return;
  Array<S> device(*backend_, t.plan.slots, dy.cols);
  Array<S> dw(*backend_, dweight.rows, dweight.cols);
  backend_->combine_backward(dy, t.out.view(), t.plan, weight, device.view(), dw.view());
  backend_->add(dw.view(), dweight, 1);
  Matrix<S> d = device.to_host();
  const Matrix<S> gate = gate_.to_host();
  const Matrix<S> vec = vec_.to_host();
  Matrix<S> dgate(gate.rows(), gate.cols());
  Matrix<S> dvec(vec.rows(), vec.cols());
  for (Index s = 0; s < d.rows(); ++s) {  // dout becomes dx
    const int e = t.expert[s];
    if (e >= 0 && types_[e] == ExpertKind::constant)
      constant_backward(e, t.rows.row(s), d.row(s), gate, vec, dgate, dvec);
  }
  if (!gate_.grad().empty())
    backend_->add(Array<S>(*backend_, std::as_const(dgate).view()).view(), gate_.grad(), 1);
  if (!vec_.grad().empty())
    backend_->add(Array<S>(*backend_, std::as_const(dvec).view()).view(), vec_.grad(), 1);
  device.set(std::as_const(d).view());
  backend_->combine(device.view(), t.plan, {}, dx, 1);
}

template <class S>
void ZeroComputationExperts<S>::outputs_of_all(const Matrix<S>& x, Matrix<S>& out) const {
  const Matrix<S> gate = gate_.to_host();
  const Matrix<S> vec = vec_.to_host();
  for (int e = 0; e < int(types_.size()); ++e) {
    for (Index t = 0; t < x.rows() && types_[e] != ExpertKind::ffn; ++t)
      compute(e, x.row(t), out.row(e * x.rows() + t), gate, vec);
  }
}

template class ZeroComputationExperts<float>;
template class ZeroComputationExperts<double>;

}  // namespace moe
