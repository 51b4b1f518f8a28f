// A product with a bias, a norm of rows, an activation by its published name: what the encoders
// and projectors of all families are made of.
#pragma once
#include <string>

#include "lib/files/config_reader.h"
#include "lib/tower/rows.h"
#include "lib/tower/tensors.h"

namespace moe {

enum class Bias { with, without };

// y = x W' + b
template <class S>
struct Affine {
  Array<S> weight;  // (O,I)
  Array<S> bias;    // (1,O), empty = none

  Array<S> operator()(Backend<S>&, View<const S> x) const;
  Array<S> operator()(Backend<S>& b, const Array<S>& x) const {
    return (*this)(b, x.view());
  }
  void add_to(Backend<S>&, View<const S> x, View<S> y) const;
};
// name + ".weight" (out, in), name + ".bias" (out)
template <class S>
Affine<S> read_affine(TowerTensors<S>&, const std::string& name, Index out, Index in,
                      Bias = Bias::with);
// A convolution whose steps are as long as its kernel, as the product that it is: its weight is
// (out, sizes...).
template <class S>
Affine<S> read_patch_matrix(TowerTensors<S>&, const std::string& name, const Dims& dims,
                            Bias = Bias::with);

// LayerNorm with bias, or RMSNorm where `bias` is empty.
template <class S>
struct RowNorm {
  Array<S> weight, bias;  // (1,n)
  double eps = 0;

  Array<S> operator()(Backend<S>&, View<const S> x /*(T,n)*/) const;
  Array<S> operator()(Backend<S>& b, const Array<S>& x) const {
    return (*this)(b, x.view());
  }
};
template <class S>
RowNorm<S> read_layer_norm(TowerTensors<S>&, const std::string& name, Index width, double eps);
template <class S>
RowNorm<S> read_rms_norm(TowerTensors<S>&, const std::string& name, Index width, double eps);

// h(x) = kind(inner x) / inner: x sigmoid(1.702 x) is such a one.
struct TowerActivation {
  Activation kind = Activation::gelu;
  double inner = 1;
};
// The activation that a key of config.json names. Throws Error(input) for one that is not here.
TowerActivation read_activation(const ConfigReader&, const char* key, const std::string& fallback);
template <class S>
Array<S> activated(Backend<S>&, TowerActivation, RowsOf<S> x);
template <class S>
Array<S> activated(Backend<S>& b, TowerActivation a, const Array<S>& x) {
  return activated(b, a, x.view());
}

// second(activation(first(x)))
template <class S>
struct TwoLayers {
  Affine<S> first, second;
  TowerActivation activation;

  Array<S> operator()(Backend<S>& b, View<const S> x) const {
    return second(b, activated(b, activation, first(b, x)));
  }
};

}  // namespace moe
