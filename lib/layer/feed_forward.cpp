#include "lib/layer/feed_forward.h"

#include "lib/core/profile.h"
#include "lib/layer/expert_cache.h"

namespace moe {
namespace {

// So few tokens are computed as in decoding, in training too: what trains has many more.
constexpr Index few_tokens = 4;

}  // namespace

template <class S>
ExpertParameters<S>::ExpertParameters(Backend<S>& b, const std::string& prefix, Activation a,
                                      Index experts, Index width, Index hidden, bool bias,
                                      Storage where)
    : activation(a) {
  const auto dims = [&](std::vector<Index> d) {
    if (experts > 0)
      d.insert(d.begin(), experts);
    return d;
  };
  const auto vector = [&](const char* name, Index n) {
    return Parameter<S>(b, prefix + name,
                        experts > 0 ? std::vector<Index>{experts, n} : std::vector<Index>{n},
                        ParameterKind::vector, where);
  };
  if (is_gated(a))
    gate = Parameter<S>(b, prefix + "gate", dims({width, hidden}), ParameterKind::matrix, where);
  up = Parameter<S>(b, prefix + "up", dims({width, hidden}), ParameterKind::matrix, where);
  down = Parameter<S>(b, prefix + "down", dims({hidden, width}), ParameterKind::matrix, where);
  if (!bias)
    return;
  if (is_gated(a))
    gate_bias = vector("gate_bias", width);
  up_bias = vector("up_bias", width);
  down_bias = vector("down_bias", hidden);
}
template <class S>
void ExpertParameters<S>::forward(Backend<S>& b, View<const S> xs, const Plan& plan,
                                  ExpertTape<S>& tape, View<S> ys) const {
  if (cache)
    cache->experts(*this, xs, plan, ys);
  else
    b.experts(weights(), xs, plan, tape, ys);
}
template <class S>
ExpertWeights<S> ExpertParameters<S>::weights() const {
  return {activation,       gate.weight(),  up.weight(),     down.weight(),
          gate_bias.held(), up_bias.held(), down_bias.held()};
}
template <class S>
ExpertGrads<S> ExpertParameters<S>::grads() {
  return {gate.grad(), up.grad(), down.grad(), gate_bias.grad(), up_bias.grad(), down_bias.grad()};
}
template <class S>
void ExpertParameters<S>::collect(std::vector<Parameter<S>*>& all) {
  for (Parameter<S>* p : {&gate, &up, &down, &gate_bias, &up_bias, &down_bias}) {
    if (!p->empty())
      all.push_back(p);
  }
}

template <class S>
FeedForward<S>::FeedForward(Backend<S>& b, const std::string& prefix, Activation a, Index width,
                            Index hidden, bool bias)
    : backend_(&b), expert_parameters_(b, prefix, a, 0, width, hidden, bias) {}

template <class S>
void FeedForward<S>::forward(const Batch& batch, View<const S> x, View<S> y, Tape& tape) {
  const TimeSpan time(TimePart::products, "feed-forward");
  Matrix<int> everyone(x.rows, 1, 0);
  bool padded = false;
  for (Index t = 0; t < x.rows; ++t) {
    if (!batch.is_valid(t)) {
      everyone(t, 0) = -1;
      padded = true;
    }
  }
  const Array<int> kept(*backend_, everyone.view());
  tape.plan = backend_->plan(kept.view(), 1);
  tape.plan.decoding = x.rows <= few_tokens;
  if (!padded)
    return backend_->experts(expert_parameters_.weights(), x, tape.plan, tape.bodies, y);
  tape.sorted = Array<S>(*backend_, tape.plan.slots, x.cols);
  Array<S> out(*backend_, tape.plan.slots, x.cols);
  backend_->dispatch(x, tape.plan, tape.sorted.view());
  backend_->experts(expert_parameters_.weights(), tape.sorted.view(), tape.plan, tape.bodies,
                    out.view());
  backend_->combine(out.view(), tape.plan, {}, y, 0);
}

template <class S>
void FeedForward<S>::backward(const Tape& tape, View<const S> x, View<const S> dy, View<S> dx) {
  const TimeSpan time(TimePart::products, "feed-forward backward");
  if (tape.sorted.empty()) {
    return backend_->experts_backward(expert_parameters_.weights(), expert_parameters_.grads(), x,
                                      tape.plan, tape.bodies, dy, {}, dx, {});
  }
  Array<S> dys(*backend_, tape.plan.slots, x.cols);
  Array<S> dxs(*backend_, tape.plan.slots, x.cols);
  backend_->dispatch(dy, tape.plan, dys.view());
  backend_->experts_backward(expert_parameters_.weights(), expert_parameters_.grads(),
                             tape.sorted.view(), tape.plan, tape.bodies, dys.view(), {}, dxs.view(),
                             {});
  backend_->combine(dxs.view(), tape.plan, {}, dx, 0);
}

template struct ExpertParameters<float>;
template struct ExpertParameters<double>;
template class FeedForward<float>;
template class FeedForward<double>;

}  // namespace moe
