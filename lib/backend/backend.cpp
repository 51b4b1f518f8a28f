#include "lib/backend/backend.h"

#include <cmath>

#include "lib/core/error.h"

namespace moe {

#define BACKEND(name, about, examples) MakeBackend make_##name##_backend;
#include "lib/backend/backends.def"
#undef BACKEND

const Registry<MakeBackend>& backends() {
  static const Registry<MakeBackend> all("device", {
#define BACKEND(name, about, examples) {#name, about, examples, make_##name##_backend},
#include "lib/backend/backends.def"
#undef BACKEND
                                                   });
  return all;
}

std::unique_ptr<Backend<float>> make_backend(const std::string& text) {
  Spec spec(text);
  auto made = backends().at(spec.name()).make(spec);
  spec.done();
  return made;
}

constexpr std::pair<Activation, std::string_view> activations[] = {
    {Activation::swiglu, "swiglu"},
    {Activation::geglu, "geglu"},
    {Activation::geglu_tanh, "geglu_tanh"},
    {Activation::reglu, "reglu"},
    {Activation::swiglu_clamped, "swiglu_clamped"},
    {Activation::silu, "silu"},
    {Activation::relu, "relu"},
    {Activation::relu2, "relu2"},
    {Activation::gelu, "gelu"},
    {Activation::gelu_tanh, "gelu_tanh"}};

std::string_view name_of(Activation a) {
  return activations[std::size_t(a)].second;
}
std::vector<std::string> activation_names() {
  std::vector<std::string> out;
  for (const auto& [a, name] : activations)
    out.emplace_back(name);
  return out;
}
Activation activation_of(std::string_view name) {
  for (const auto& [a, n] : activations) {
    if (n == name)
      return a;
  }
  no_such("activation", name, activation_names());
}

std::vector<double> rotary_frequencies(int dims, double theta) {
  std::vector<double> out;
  for (int j = 0; j < dims / 2; ++j)
    out.push_back(std::pow(theta, -2.0 * j / dims));
  return out;
}

template <class S>
View<const S> plain(const Weight& w) {
  if (w.dtype != dtype_of<S>) {
    throw Error(Exit::bug, concat("a weight stored as ", name_of(w.dtype), " was read as ",
                                  name_of(dtype_of<S>)));
  }
  return {static_cast<const S*>(w.data), w.rows, w.cols};
}
template View<const float> plain<float>(const Weight&);
template View<const double> plain<double>(const Weight&);

template <class S>
void Backend<S>::experts(const ExpertWeights<S>& w, View<const S> xs, const Plan& plan,
                         ExpertTape<S>& tape, View<S> ys) {
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<S>(*this, xs.rows, width);
  tape.gate = Array<S>(*this, is_gated(w.activation) ? xs.rows : 0, width);
  if (is_gated(w.activation)) {
    grouped_linear(xs, w.gate, plan, tape.gate.view(), 0);
    if (!w.gate_bias.empty())
      grouped_add_bias(w.gate_bias, plan, tape.gate.view());
  }
  grouped_linear(xs, w.up, plan, tape.up.view(), 0);
  if (!w.up_bias.empty())
    grouped_add_bias(w.up_bias, plan, tape.up.view());
  Array<S> h(*this, xs.rows, width);
  activate(w.activation, tape.gate.view(), tape.up.view(), h.view());
  grouped_linear(h.view(), w.down, plan, ys, 0);
  if (!w.down_bias.empty())
    grouped_add_bias(w.down_bias, plan, ys);
}

template <class S>
void Backend<S>::experts_backward(const ExpertWeights<S>& w, const ExpertGrads<S>& g,
                                  View<const S> xs, const Plan& plan, const ExpertTape<S>& tape,
                                  View<const S> dys, View<const S> weight, View<S> dxs,
                                  View<S> dweight) {
  const bool gated = is_gated(w.activation);
  const Index width = tape.up.cols();
  Array<S> dh(*this, xs.rows, width);
  Array<S> dup(*this, xs.rows, width);
  Array<S> dgate(*this, gated ? xs.rows : 0, width);
  const Array<S> share = dweight.empty() ? Array<S>{} : bias_share(w.down_bias, dys, plan);
  grouped_linear_dx(dys, w.down, plan, dh.view(), 0);
  activate_backward(w.activation, tape.gate.view(), tape.up.view(), plan, weight, share.view(),
                    dh.view(), dgate.view(), dup.view(), dweight);
  if (!g.down.empty())
    grouped_linear_dw(dys, dh.view(), plan, g.down);
  weighted_bias_grad(dys, plan, weight, g.down_bias);
  grouped_linear_dx(dup.view(), w.up, plan, dxs, 0);
  if (!g.up.empty())
    grouped_linear_dw(dup.view(), xs, plan, g.up);
  if (!g.up_bias.empty())
    grouped_bias_grad(dup.view(), plan, g.up_bias);
  if (!gated)
    return;
  grouped_linear_dx(dgate.view(), w.gate, plan, dxs, 1);
  if (!g.gate.empty())
    grouped_linear_dw(dgate.view(), xs, plan, g.gate);
  if (!g.gate_bias.empty())
    grouped_bias_grad(dgate.view(), plan, g.gate_bias);
}

template <class S>
Array<S> Backend<S>::bias_share(View<const S> bias, View<const S> dys, const Plan& plan) {
  if (bias.empty())
    return {};
  Array<S> share(*this, dys.rows, 1);
  grouped_linear(dys, Weight(bias), plan, share.view(), 0);  // a body of one row an expert
  return share;
}
template <class S>
void Backend<S>::weighted_bias_grad(View<const S> dys, const Plan& plan, View<const S> weight,
                                    View<S> db) {
  if (db.empty())
    return;
  if (weight.empty())
    return grouped_bias_grad(dys, plan, db);
  Array<S> weighted = Array<S>::zeros(*this, dys.rows, dys.cols);
  add(dys, weighted.view(), 1);
  scale_slots(weighted.view(), plan, weight);
  grouped_bias_grad(weighted.view(), plan, db);
}

template class Backend<float>;
template class Backend<double>;

}  // namespace moe
