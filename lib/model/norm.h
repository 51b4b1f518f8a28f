// The norm in front of a branch: RMSNorm, or LayerNorm with or without bias, which is RMSNorm of
// the centred row.
#pragma once
#include "lib/backend/backend.h"
#include "lib/layer/parameter.h"
#include "lib/model/config.h"

namespace moe {

template <class S>
class Norm {
 public:
  Norm() = default;
  Norm(Backend<S>& b, const std::string& name, NormKind kind, Index width, double eps)
      : backend_(&b), kind_(kind), eps_(eps), weight_(b, name, {width}, ParameterKind::vector) {
    if (kind == NormKind::layer_bias)
      bias_ = Parameter<S>(b, name + "_bias", {width}, ParameterKind::vector);
  }

  void forward(View<const S> x /*(T,H)*/, View<S> y, View<S> rstd /*(T,1)*/) const {
    if (kind_ == NormKind::rms)
      return backend_->norm(x, weight_.value(), eps_, y, rstd);
    const Array<S> centred = without_mean(x);
    backend_->norm(centred.view(), weight_.value(), eps_, y, rstd);
    if (!bias_.empty())
      backend_->add_bias(bias_.value(), y);
  }
  // dx = gradient + beta dx; adds to the gradients of what is trained.
  void backward(View<const S> dy, View<const S> x, View<const S> rstd, View<S> dx, S beta) {
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
  void collect(std::vector<Parameter<S>*>& all) {
    all.push_back(&weight_);
    if (!bias_.empty())
      all.push_back(&bias_);
  }

 private:
  Array<S> without_mean(View<const S> x) const {
    Array<S> out = Array<S>::zeros(*backend_, x.rows, x.cols);
    backend_->add(x, out.view(), 1);
    backend_->center(out.view());
    return out;
  }

  Backend<S>* backend_ = nullptr;
  NormKind kind_ = NormKind::rms;
  double eps_ = 0;
  Parameter<S> weight_, bias_;
};

}  // namespace moe
