#include "lib/model/signal_projector.h"

#include <algorithm>

#include "lib/model/config.h"

namespace moe {
namespace {

constexpr Activation between = Activation::gelu;

// The signal's rows as they come, or laid out over T rows with zeros between them.
template <class S>
Matrix<S> rows_of(const Signal& s) {
  Matrix<S> out(s.value.rows(), s.value.cols());
  std::ranges::copy(s.value.flat(), out.data());
  return out;
}
template <class S>
Matrix<S> laid_out(const Signal& s, Index tokens) {
  Matrix<S> out(tokens, s.value.cols());
  for (std::size_t i = 0; i < s.row.size(); ++i)
    std::ranges::copy(s.value.row(Index(i)), out.row(s.row[i]).begin());
  return out;
}

}  // namespace

template <class S>
SignalProjector<S>::SignalProjector(Backend<S>& b, const std::string& name, ProjectorKind kind,
                                    Index hidden, Index numbers)
    : backend_(&b), kind_(kind) {
  if (kind == ProjectorKind::linear) {
    first_ = Parameter<S>(b, name, {hidden, numbers});
    return;
  }
  first_ = Parameter<S>(b, name + ".0", {hidden, numbers});
  first_bias_ = Parameter<S>(b, name + ".0.bias", {hidden}, ParameterKind::vector);
  second_ = Parameter<S>(b, name + ".2", {hidden, hidden});
  second_bias_ = Parameter<S>(b, name + ".2.bias", {hidden}, ParameterKind::vector);
}

template <class S>
Array<S> SignalProjector<S>::hidden(const Tape& tape) const {
  Array<S> h(*backend_, tape.up.rows(), tape.up.cols());
  backend_->activate(between, {}, tape.up.view(), h.view());
  return h;
}

template <class S>
void SignalProjector<S>::forward(const Signal& s, View<S> x, Tape& tape) const {
  Backend<S>& b = *backend_;
  if (kind_ == ProjectorKind::linear) {
    const Matrix<S> rows = laid_out<S>(s, x.rows);
    tape.rows = Array<S>(b, rows.view());
    b.linear(std::as_const(tape.rows).view(), first_.weight(), x, S(1));
    return;
  }
  const Index count = s.value.rows();
  if (count == 0)
    return;
  const Matrix<S> rows = rows_of<S>(s);
  Matrix<int> at(1, count);
  std::ranges::copy(s.row, at.data());
  tape.rows = Array<S>(b, rows.view());
  tape.at = Array<int>(b, std::as_const(at).view());
  tape.up = Array<S>(b, count, x.cols);
  b.linear(std::as_const(tape.rows).view(), first_.weight(), tape.up.view(), S(0));
  b.add_bias(first_bias_.held(), tape.up.view());
  const Array<S> h = hidden(tape);
  Array<S> out(b, count, x.cols);
  b.linear(h.view(), second_.weight(), out.view(), S(0));
  b.add_bias(second_bias_.held(), out.view());
  b.embed_backward(std::as_const(out).view(), std::as_const(tape.at).view(), x);
}

template <class S>
void SignalProjector<S>::backward(View<const S> dx, Tape& tape) {
  const Tape of = std::exchange(tape, {});
  if (of.rows.empty())
    return;
  if (kind_ == ProjectorKind::mlp2x_gelu)
    two_backward(dx, of);
  else if (!first_.grad().empty())
    backend_->linear_dw(dx, of.rows.view(), first_.grad());
}

template <class S>
void SignalProjector<S>::two_backward(View<const S> dx, const Tape& of) {
  Backend<S>& b = *backend_;
  const Index count = of.rows.rows();
  Array<S> dout(b, count, dx.cols);
  b.embed(Weight(dx), of.at.view(), dout.view());
  const View<const S> got = std::as_const(dout).view();
  if (!second_bias_.grad().empty())
    b.bias_grad(got, second_bias_.grad());
  Array<S> dh(b, count, dx.cols);
  Array<S> dup(b, count, dx.cols);
  b.linear_dx(got, second_.weight(), dh.view(), S(0));
  const Matrix<int> everyone(count, 1, 0);
  const Plan plan = b.plan(Array<int>(b, everyone.view()).view(), 1);
  b.activate_backward(between, {}, of.up.view(), plan, {}, {}, dh.view(), {}, dup.view(), {});
  if (!second_.grad().empty())  // dh is the hidden rows now
    b.linear_dw(got, std::as_const(dh).view(), second_.grad());
  const View<const S> first = std::as_const(dup).view();
  if (!first_bias_.grad().empty())
    b.bias_grad(first, first_bias_.grad());
  if (!first_.grad().empty())
    b.linear_dw(first, of.rows.view(), first_.grad());
}

template <class S>
void SignalProjector<S>::collect(const ModelConfig& c, std::vector<ModelParameter<S>>& all) {
  for (Parameter<S>* p : {&first_, &second_}) {
    if (p->empty())
      continue;
    all.push_back({.parameter = p,
                   .start = matrix_start(c, MatrixRole::other, p->dims().back()),
                   .published = p->name() + ".weight",
                   .group = "projector"});
  }
  for (Parameter<S>* p : {&first_bias_, &second_bias_}) {
    if (!p->empty())
      all.push_back({.parameter = p, .published = p->name(), .group = "projector"});
  }
}

template class SignalProjector<float>;
template class SignalProjector<double>;

}  // namespace moe
