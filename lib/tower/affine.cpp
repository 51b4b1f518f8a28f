#include "lib/tower/affine.h"

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tower/rows.h"

namespace moe {

template <class S>
Array<S> Affine<S>::operator()(Backend<S>& b, View<const S> x) const {
  Array<S> y(b, x.rows, weight.rows());
  b.linear(x, Weight(weight.view()), y.view(), 0);
  if (!bias.empty())
    b.add_bias(bias.view(), y.view());
  return y;
}

template <class S>
void Affine<S>::add_to(Backend<S>& b, View<const S> x, View<S> y) const {
  b.linear(x, Weight(weight.view()), y, 1);
  if (!bias.empty())
    b.add_bias(bias.view(), y);
}

template <class S>
Affine<S> read_affine(TowerTensors<S>& t, const std::string& name, Index out, Index in, Bias bias) {
  return read_patch_matrix(t, name, {out, in}, bias);
}

template <class S>
Affine<S> read_patch_matrix(TowerTensors<S>& t, const std::string& name, const Dims& dims,
                            Bias bias) {
  Affine<S> a;
  a.weight = t.array(name + ".weight", dims);
  if (bias == Bias::with)
    a.bias = t.array(name + ".bias", {dims[0]});
  return a;
}

template <class S>
Array<S> RowNorm<S>::operator()(Backend<S>& b, View<const S> x) const {
  Array<S> y(b, x.rows, x.cols);
  Array<S> rstd(b, x.rows, 1);
  if (bias.empty()) {
    b.norm(x, weight.view(), eps, y.view(), rstd.view());
    return y;
  }
  Array<S> centred = copy_of(b, x);
  b.center(centred.view());
  b.norm(centred.view(), weight.view(), eps, y.view(), rstd.view());
  b.add_bias(bias.view(), y.view());
  return y;
}

template <class S>
RowNorm<S> read_layer_norm(TowerTensors<S>& t, const std::string& name, Index width, double eps) {
  RowNorm<S> n = read_rms_norm(t, name, width, eps);
  n.bias = t.array(name + ".bias", {width});
  return n;
}

template <class S>
RowNorm<S> read_rms_norm(TowerTensors<S>& t, const std::string& name, Index width, double eps) {
  RowNorm<S> n;
  n.weight = t.array(name + ".weight", {width});
  n.eps = eps;
  return n;
}

TowerActivation read_activation(const ConfigReader& c, const char* key,
                                const std::string& fallback) {
  const std::string name = c.text(key, fallback);
  if (name == "gelu")
    return {Activation::gelu};
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast")
    return {Activation::gelu_tanh};
  if (name == "quick_gelu")
    return {Activation::silu, 1.702};
  if (name == "silu" || name == "swish")
    return {Activation::silu};
  if (name == "relu")
    return {Activation::relu};
  c.refuse(concat(key, " is '", name, "', an activation that encoders do not have here"),
           "gelu, gelu_pytorch_tanh, gelu_new, gelu_fast, quick_gelu, silu or relu");
}

template <class S>
Array<S> activated(Backend<S>& b, TowerActivation a, RowsOf<S> x) {
  Array<S> y(b, x.rows, x.cols);
  if (a.inner == 1) {
    b.activate(a.kind, {}, x, y.view());
    return y;
  }
  const Array<S> scaled = copy_of(b, x, S(a.inner));
  b.activate(a.kind, {}, scaled.view(), y.view());
  return copy_of(b, y.view(), S(1 / a.inner));
}

#define INSTANTIATE(S)                                                                           \
  template struct Affine<S>;                                                                     \
  template struct RowNorm<S>;                                                                    \
  template Affine<S> read_affine(TowerTensors<S>&, const std::string&, Index, Index, Bias);      \
  template Affine<S> read_patch_matrix(TowerTensors<S>&, const std::string&, const Dims&, Bias); \
  template RowNorm<S> read_layer_norm(TowerTensors<S>&, const std::string&, Index, double);      \
  template RowNorm<S> read_rms_norm(TowerTensors<S>&, const std::string&, Index, double);        \
  template Array<S> activated(Backend<S>&, TowerActivation, RowsOf<S>);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
