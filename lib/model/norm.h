// The norm in front of a branch or behind it: RMSNorm, RMSNorm times 1 + w, or LayerNorm with or
// without bias, which is RMSNorm of the centred row.
#pragma once
#include <string>
#include <vector>

#include "lib/layer/parameter.h"

namespace moe {

enum class NormKind;  // config.h
template <class S>
class Backend;

// Where its weights start.
double norm_start(NormKind);
// The factors of an RMSNorm whose parameter is w: w itself, or 1 + w in `room`.
template <class S>
View<const S> norm_factors(Backend<S>&, NormKind, const Parameter<S>& w, Array<S>& room);

template <class S>
class Norm {
 public:
  Norm() = default;
  Norm(Backend<S>&, const std::string& name, NormKind, Index width, double eps);
  bool empty() const {
    return backend_ == nullptr;
  }

  void forward(View<const S> x /*(T,H)*/, View<S> y, View<S> rstd /*(T,1)*/) const;
  // dx = gradient + beta dx; adds to the gradients of what is trained.
  void backward(View<const S> dy, View<const S> x, View<const S> rstd, View<S> dx, S beta);
  void collect(std::vector<Parameter<S>*>& all);  // name, name + "_bias"

 private:
  Array<S> without_mean(View<const S> x) const;

  Backend<S>* backend_ = nullptr;
  NormKind kind_ = {};
  double eps_ = 0;
  Parameter<S> weight_, bias_;
};

}  // namespace moe
