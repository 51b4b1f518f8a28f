// The way of a router that mixes (Soft MoE, equations.md 2.11): slots take mixtures of tokens,
// experts run on slots, tokens take mixtures of the slots' outputs. Both mixtures are dense
// products, so the backend's linear operations do all of it.
#include <utility>

#include "lib/core/convert.h"
#include "lib/layer/moe_layer.h"

namespace moe {
namespace {

template <class S>
Array<S> to_device(Backend<S>& backend, const Matrix<double>& m) {
  const Matrix<S> host = converted<S>(m);
  return Array<S>(backend, host.view());
}
template <class S>
Matrix<double> to_host(const Array<S>& a) {
  return converted<double>(a.to_host());
}

}  // namespace

// xs = D' x, ys = E(xs), y = C ys
template <class S>
void MoeLayer<S>::mix(View<const S> x, View<S> y, MoeTape<S>& t) {
  const Index slots = capability<Mixing>(*router_)->slots();
  const Index each = slots / config_.experts;
  Matrix<int> expert(slots, 1);
  for (Index n = 0; n < slots; ++n)
    expert(n, 0) = int(n / each);
  const Array<int> kept(backend_, std::as_const(expert).view());
  t.plan = backend_.plan(kept.view(), config_.experts);  // slots stand in order already
  t.dispatch = to_device<S>(backend_, t.routing.dispatch);
  t.mix = to_device<S>(backend_, t.routing.mix);
  t.sorted = Array<S>::zeros(backend_, slots, config_.hidden);
  t.out = Array<S>(backend_, slots, config_.hidden);
  backend_.linear_dw(t.dispatch.view(), x, t.sorted.view());
  bodies_.forward(backend_, t.sorted.view(), t.plan, t.bodies, t.out.view());
  backend_.linear_dx(t.mix.view(), Weight(std::as_const(t.out).view()), y, 0);
}

// dys = C' dy, dC = dy ys', dxs by the experts, dx = D dxs, dD = x dxs'; sets dx but for what comes
// by the scores.
template <class S>
void MoeLayer<S>::mix_backward(const MoeTape<S>& t, View<const S> x, View<const S> dy, View<S> dx,
                               std::vector<Matrix<double>>& dscores) {
  const Index slots = capability<Mixing>(*router_)->slots();
  const Index tokens = x.rows;
  Array<S> dys = Array<S>::zeros(backend_, slots, config_.hidden);
  Array<S> dxs(backend_, slots, config_.hidden);
  Array<S> dmix(backend_, tokens, slots);
  Array<S> ddispatch(backend_, tokens, slots);
  backend_.linear_dw(t.mix.view(), dy, dys.view());
  backend_.linear(dy, Weight(t.out.view()), dmix.view(), 0);
  backend_.experts_backward(bodies_.weights(), bodies_.grads(), t.sorted.view(), t.plan, t.bodies,
                            dys.view(), {}, dxs.view(), {});
  backend_.linear(x, Weight(std::as_const(dxs).view()), ddispatch.view(), 0);
  backend_.linear_dx(t.dispatch.view(), Weight(std::as_const(dxs).view()), dx, 0);
  capability<Mixing>(*router_)->mix_backward(t.input, t.routing, to_host(ddispatch), to_host(dmix),
                                             dscores);
}

template void MoeLayer<float>::mix(View<const float>, View<float>, MoeTape<float>&);
template void MoeLayer<double>::mix(View<const double>, View<double>, MoeTape<double>&);
template void MoeLayer<float>::mix_backward(const MoeTape<float>&, View<const float>,
                                            View<const float>, View<float>,
                                            std::vector<Matrix<double>>&);
template void MoeLayer<double>::mix_backward(const MoeTape<double>&, View<const double>,
                                             View<const double>, View<double>,
                                             std::vector<Matrix<double>>&);

}  // namespace moe
