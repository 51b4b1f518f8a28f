#include "lib/model/norm.h"

#include "lib/backend/backend.h"
#include "lib/model/config.h"

namespace moe {

double norm_start(NormKind kind) {
  return kind == NormKind::rms_plus_one ? 0 : 1;
}

template <class S>
View<const S> norm_factors(Backend<S>& b, NormKind kind, const Parameter<S>& w, Array<S>& room) {
  if (kind != NormKind::rms_plus_one)
    return w.value();
  const Matrix<S> ones(1, w.value().cols, S(1));
  room = Array<S>(b, ones.view());
  b.add(w.value(), room.view(), 1);
  return std::as_const(room).view();
}
template View<const float> norm_factors(Backend<float>&, NormKind, const Parameter<float>&,
                                        Array<float>&);
template View<const double> norm_factors(Backend<double>&, NormKind, const Parameter<double>&,
                                         Array<double>&);

template <class S>
Norm<S>::Norm(Backend<S>& b, const std::string& name, NormKind kind, Index width, double eps)
    : backend_(&b), kind_(kind), eps_(eps), weight_(b, name, {width}, ParameterKind::vector) {
  if (kind == NormKind::layer_bias)
    bias_ = Parameter<S>(b, name + "_bias", {width}, ParameterKind::vector);
}

template <class S>
void Norm<S>::forward(View<const S> x, View<S> y, View<S> rstd) const {
  Array<S> room;
  if (kind_ == NormKind::rms || kind_ == NormKind::rms_plus_one)
    return backend_->norm(x, norm_factors(*backend_, kind_, weight_, room), eps_, y, rstd);
  const Array<S> centred = without_mean(x);
  backend_->norm(centred.view(), weight_.value(), eps_, y, rstd);
  if (!bias_.empty())
    backend_->add_bias(bias_.value(), y);
}

template <class S>
void Norm<S>::backward(View<const S> dy, View<const S> x, View<const S> rstd, View<S> dx, S beta) {
  Array<S> room;
  if (kind_ == NormKind::rms || kind_ == NormKind::rms_plus_one) {
    return backend_->norm_backward(dy, x, norm_factors(*backend_, kind_, weight_, room), rstd, dx,
                                   weight_.grad(), beta);
  }
  const Array<S> centred = without_mean(x);
  Array<S> part(*backend_, x.rows, x.cols);
  backend_->norm_backward(dy, centred.view(), weight_.value(), rstd, part.view(), weight_.grad(),
                          0);
  backend_->center(part.view());
  if (!bias_.grad().empty())
    backend_->bias_grad(dy, bias_.grad());
  if (beta == 0)
    backend_->zero(dx.data, std::size_t(dx.size()) * sizeof(S));
  backend_->add(part.view(), dx, 1);
}

template <class S>
void Norm<S>::collect(std::vector<Parameter<S>*>& all) {
  if (empty())
    return;
  all.push_back(&weight_);
  if (!bias_.empty())
    all.push_back(&bias_);
}

template <class S>
Array<S> Norm<S>::without_mean(View<const S> x) const {
  Array<S> out = Array<S>::zeros(*backend_, x.rows, x.cols);
  backend_->add(x, out.view(), 1);
  backend_->center(out.view());
  return out;
}

template class Norm<float>;
template class Norm<double>;

}  // namespace moe
