// Expert bodies composed of grouped products, biases and activations, forwards and backwards.
#include "lib/backend/backend.h"

namespace moe {

template <class S>
void Backend<S>::experts(const ExpertWeights<S>& w, View<const S> xs, const Plan& plan,
                         ExpertTape<S>& tape, View<S> ys) {
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<S>(*this, xs.rows, width);
  tape.gate = Array<S>(*this, is_gated(w.activation) ? xs.rows : 0, width);
  if (is_gated(w.activation)) {
    this->grouped_linear(xs, w.gate, plan, tape.gate.view(), 0);
    if (!w.gate_bias.empty())
      this->grouped_add_bias(w.gate_bias, plan, tape.gate.view());
  }
  this->grouped_linear(xs, w.up, plan, tape.up.view(), 0);
  if (!w.up_bias.empty())
    this->grouped_add_bias(w.up_bias, plan, tape.up.view());
  Array<S> h(*this, xs.rows, width);
  this->activate(w.activation, tape.gate.view(), tape.up.view(), h.view());
  this->grouped_linear(h.view(), w.down, plan, ys, 0);
  if (!w.down_bias.empty())
    this->grouped_add_bias(w.down_bias, plan, ys);
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
  this->grouped_linear_dx(dys, w.down, plan, dh.view(), 0);
  this->activate_backward(w.activation, tape.gate.view(), tape.up.view(), plan, weight,
                          share.view(), dh.view(), dgate.view(), dup.view(), dweight);
  if (!g.down.empty())
    this->grouped_linear_dw(dys, dh.view(), plan, g.down);
  weighted_bias_grad(dys, plan, weight, g.down_bias);
  this->grouped_linear_dx(dup.view(), w.up, plan, dxs, 0);
  if (!g.up.empty())
    this->grouped_linear_dw(dup.view(), xs, plan, g.up);
  if (!g.up_bias.empty())
    this->grouped_bias_grad(dup.view(), plan, g.up_bias);
  if (!gated)
    return;
  this->grouped_linear_dx(dgate.view(), w.gate, plan, dxs, 1);
  if (!g.gate.empty())
    this->grouped_linear_dw(dgate.view(), xs, plan, g.gate);
  if (!g.gate_bias.empty())
    this->grouped_bias_grad(dgate.view(), plan, g.gate_bias);
}

template <class S>
Array<S> Backend<S>::bias_share(View<const S> bias, View<const S> dys, const Plan& plan) {
  if (bias.empty())
    return {};
  Array<S> share(*this, dys.rows, 1);
  this->grouped_linear(dys, Weight(bias), plan, share.view(), 0);  // a body of one row an expert
  return share;
}
template <class S>
void Backend<S>::weighted_bias_grad(View<const S> dys, const Plan& plan, View<const S> weight,
                                    View<S> db) {
  if (db.empty())
    return;
  if (weight.empty())
    return this->grouped_bias_grad(dys, plan, db);
  Array<S> weighted = Array<S>::zeros(*this, dys.rows, dys.cols);
  this->add(dys, weighted.view(), 1);
  this->scale_slots(weighted.view(), plan, weight);
  this->grouped_bias_grad(weighted.view(), plan, db);
}

template class Backend<float>;
template class Backend<double>;

}  // namespace moe
