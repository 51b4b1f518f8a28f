#include "lib/model/norm.h"

#include "lib/backend/backend.h"
#include "lib/model/config.h"

namespace moe {

template <class S>
Norm<S>::Norm(Backend<S>& b, const std::string& name, NormKind kind, Index width, double eps)
    : backend_(&b), kind_(kind), eps_(eps), weight_(b, name, {width}, ParameterKind::vector) {
  if (kind == NormKind::layer_bias)
    bias_ = Parameter<S>(b, name + "_bias", {width}, ParameterKind::vector);
}

template <class S>
void Norm<S>::forward(View<const S> x, View<S> y, View<S> rstd) const {
  if (kind_ == NormKind::rms)
    return backend_->norm(x, weight_.value(), eps_, y, rstd);
  const Array<S> centred = without_mean(x);
  backend_->norm(centred.view(), weight_.value(), eps_, y, rstd);
  if (!bias_.empty())
    backend_->add_bias(bias_.value(), y);
}

template <class S>
void Norm<S>::backward(View<const S> dy, View<const S> x, View<const S> rstd, View<S> dx, S beta) {
  if (kind_ == NormKind::rms)
    return backend_->norm_backward(dy, x, weight_.value(), rstd, dx, weight_.grad(), beta);
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
