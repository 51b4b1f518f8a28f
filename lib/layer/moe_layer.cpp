#include "lib/layer/moe_layer.h"

#include <algorithm>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/layer/gate_rules.h"
#include "lib/router/mixing.h"

namespace moe {
namespace {

const std::vector<std::int64_t> no_rows;

std::vector<std::int64_t> rows_of_experts(const Plan& plan) {
  const Matrix<int> offset = plan.offset.to_host();
  std::vector<std::int64_t> out;
  for (Index e = 0; e + 1 < offset.cols(); ++e)
    out.push_back(offset(0, e + 1) - offset(0, e));
  return out;
}

}  // namespace

template <class S>
void MoeTape<S>::release() {
  if (this->memory)
    this->memory->release();
  this->choices = {};
  slots = {};
  bodies = {};
  crossing = {};
  zero_computation = {};
  shared = {};
  latent = {};
  attended = {};
}

template <class S>
MoeLayer<S>::MoeLayer(const LayerConfig& given, Backend<S>& backend, Storage experts)
    : backend_(backend), rules_(std::make_unique<GateRules<S>>(given, backend)) {
  const LayerConfig& c = config();
  if (auto on_device = make_device_gate(*rules_))
    gates_.push_back(std::move(on_device));
  gates_.push_back(make_host_gate(*rules_));
  exchange_ = capability<Mixing>(router())
                  ? make_mixture_exchange(backend, c.experts)
                  : make_choice_exchange(backend, c.experts, c.weight_on_input);
  expert_parameters_ = ExpertParameters<S>(backend, "experts.", c.activation, c.experts, c.width,
                                           c.expert_inputs(), c.expert_bias, experts);
  zero_computation_ = ZeroComputationExperts<S>(backend, c);
  if (c.shared_width > 0) {
    shared_ =
        FeedForward<S>(backend, "shared.", c.activation, c.shared_width, c.hidden, c.expert_bias);
  }
  if (c.shared_width > 0 && c.shared_gate)
    shared_gate_ = Parameter<S>(backend, "shared_gate.weight", {1, c.hidden});
  if (c.latent_width > 0) {
    latent_in_ = Parameter<S>(backend, "latent.in", {c.latent_width, c.hidden});
    latent_out_ = Parameter<S>(backend, "latent.out", {c.hidden, c.latent_width});
  }
  if (c.output_bias)
    output_bias_ = Parameter<S>(backend, "output_bias", {c.hidden}, ParameterKind::vector);
}
template <class S>
MoeLayer<S>::MoeLayer(MoeLayer&&) noexcept = default;
template <class S>
MoeLayer<S>::~MoeLayer() = default;

template <class S>
const LayerConfig& MoeLayer<S>::config() const {
  return rules_->config;
}
template <class S>
Router& MoeLayer<S>::router() {
  return *rules_->router;
}
template <class S>
const Router& MoeLayer<S>::router() const {
  return *rules_->router;
}
template <class S>
const Capacity& MoeLayer<S>::capacity() const {
  return *rules_->capacity;
}
template <class S>
const std::vector<std::unique_ptr<Balancer>>& MoeLayer<S>::balancers() const {
  return rules_->balancers;
}
template <class S>
std::vector<RouterProduct<S>>& MoeLayer<S>::products() {
  return rules_->products;
}

template <class S>
void MoeLayer<S>::collect(std::vector<Parameter<S>*>& all) {
  for (RouterProduct<S>& p : products())
    p.collect(all);
  if (!rules_->expert_scale.empty())
    all.push_back(&rules_->expert_scale);
  expert_parameters_.collect(all);
  zero_computation_.collect(all);
  if (config().shared_width > 0)
    shared_.collect(all);
  if (!shared_gate_.empty())
    all.push_back(&shared_gate_);
  for (Parameter<S>* p : {&latent_in_, &latent_out_, &output_bias_}) {
    if (!p->empty())
      all.push_back(p);
  }
  if (attention_)
    attention_->collect(all);
}

template <class S>
void MoeLayer<S>::forward(const Pass& pass, View<const S> of_router, View<const S> x, View<S> y,
                          MoeTape<S>& t) {
  const auto able = [&](const auto& gate) {
    return gate->can_route(pass);
  };
  Gate<S>& gate = **std::ranges::find_if(gates_, able);
  {
    const TimeSpan time(TimePart::routing, "route");
    gate.route(pass, of_router, t);  // 1. score and 2. route
  }
  compute(pass, x, y, t);
  {
    const TimeSpan time(TimePart::routing, "balance losses");
    gate.balance(pass, t.slots.plan, t);
  }
  if (config().shared_width > 0)
    share(pass, x, y, t.shared);
  if (!output_bias_.empty())
    backend_.add_bias(output_bias_.value(), y);
}

template <class S>
void MoeLayer<S>::backward(const Pass& pass, const MoeTape<S>& t, RouterRows router,
                           View<const S> x, View<const S> dy, View<S> dx,
                           const GateGradients& more) {
  const ChoiceGradients<S> d = compute_backward(t, x, dy, dx);
  if (config().shared_width > 0)
    share_backward(t.shared, x, dy, dx);
  if (!output_bias_.grad().empty())
    backend_.bias_grad(dy, output_bias_.grad());
  const TimeSpan time(TimePart::routing, "route backward");
  t.gate->backward(pass, t, router.x, d, router.dx, more);  // 2. and 1.
}

// y = what the experts make of their slots, brought together for each token, in the width of x.
template <class S>
void MoeLayer<S>::compute(const Pass& pass, View<const S> x, View<S> y, MoeTape<S>& t) {
  if (latent_in_.empty()) {
    run_experts(pass, x, y, t);
  } else {
    const TimeSpan time(TimePart::products, "latent");
    t.latent.in = product(x, latent_in_);
    t.latent.out = Array<S>(backend_, x.rows, config().latent_width);
    run_experts(pass, std::as_const(t.latent.in).view(), t.latent.out.view(), t);
    backend_.linear(t.latent.out.view(), latent_out_.weight(), y, 0);
  }
  for (std::size_t n = 0; n < t.choices.identity.size(); ++n) {
    if (t.choices.identity[n])
      backend_.add(x.slice(Index(n), 1), y.slice(Index(n), 1), 1);
  }
}

template <class S>
void MoeLayer<S>::run_experts(const Pass& pass, View<const S> x, View<S> y, MoeTape<S>& t) {
  {
    const TimeSpan time(TimePart::exchange, "dispatch");
    exchange_->dispatch(x, t.choices, t.slots);  // 3. dispatch
  }
  t.slots.out = Array<S>(backend_, t.slots.plan.slots, x.cols);
  t.slots.plan.decoding = !pass.training && x.rows <= most_decoding_tokens;
  const OnLoan loan(loan_, loan_ ? rows_of_experts(t.slots.plan) : no_rows);
  if (attention_) {  // 4. compute
    attend(pass, x, t);
  } else if (crossing_) {
    const TimeSpan time(TimePart::exchange, "cross to experts");
    crossing_->forward(t.slots.plan, std::as_const(t.slots.rows).view(), pass.training, t.crossing,
                       t.slots.out.view());
  } else {
    const TimeSpan time(TimePart::products, "experts");
    expert_parameters_.forward(backend_, std::as_const(t.slots.rows).view(), t.slots.plan, t.bodies,
                               t.slots.out.view());
  }
  {
    const TimeSpan time(TimePart::exchange, "combine");
    exchange_->combine(t.choices, t.slots, y);  // 5. combine
    exchange_->settle(pass.training && !attention_, t.slots);
  }
  if (zero_computation_.empty())
    return;
  const TimeSpan time(TimePart::products, "experts without a body");
  zero_computation_.forward(x, t.routing.computed(), t.choices.weight.view(), y,
                            t.zero_computation);
}

template <class S>
ChoiceGradients<S> MoeLayer<S>::compute_backward(const MoeTape<S>& t, View<const S> x,
                                                 View<const S> dy, View<S> dx) {
  ChoiceGradients<S> d;
  if (latent_in_.empty()) {
    d = run_experts_backward(t, x, dy, dx);
  } else {
    const TimeSpan time(TimePart::products, "latent backward");
    Array<S> dout(backend_, x.rows, config().latent_width);
    Array<S> din(backend_, x.rows, config().latent_width);
    backend_.linear_dx(dy, latent_out_.weight(), dout.view(), 0);
    if (!latent_out_.grad().empty())
      backend_.linear_dw(dy, t.latent.out.view(), latent_out_.grad());
    d = run_experts_backward(t, t.latent.in.view(), std::as_const(dout).view(), din.view());
    backend_.linear_dx(std::as_const(din).view(), latent_in_.weight(), dx, 0);
    if (!latent_in_.grad().empty())
      backend_.linear_dw(std::as_const(din).view(), x, latent_in_.grad());
  }
  for (std::size_t n = 0; n < t.choices.identity.size(); ++n) {
    if (t.choices.identity[n])
      backend_.add(dy.slice(Index(n), 1), dx.slice(Index(n), 1), 1);
  }
  return d;
}

template <class S>
ChoiceGradients<S> MoeLayer<S>::run_experts_backward(const MoeTape<S>& t, View<const S> x,
                                                     View<const S> dy, View<S> dx) {
  const OnLoan loan(loan_, loan_ ? rows_of_experts(t.slots.plan) : no_rows);
  if (attention_)
    return attend_backward(t, x, dy, dx);
  const TimeSpan time(TimePart::exchange, "combine and dispatch backward");
  ChoiceGradients<S> d;
  Array<S> again;  // unless the owners kept them
  if (!crossing_ || crossing_->moves_weights())
    again = exchange_->rows_again(x, t.choices, t.slots);
  const Array<S> dout = exchange_->combine_backward(dy, t.slots, t.choices, d);  // 5.
  const View<const S> rows = again.empty() ? t.slots.rows.view() : std::as_const(again).view();
  const View<const S> weight = exchange_->weights_of_outputs(t.choices);
  Array<S> drows(backend_, dout.rows(), dout.cols());
  const View<S> dweight = weight.empty() ? View<S>{} : d.weight.view();
  if (crossing_) {  // 4.
    crossing_->backward(t.slots.plan, rows, dout.view(), weight, t.crossing, drows.view(), dweight);
  } else {
    const TimeSpan products(TimePart::products, "experts backward");
    backend_.experts_backward(expert_parameters_.weights(), expert_parameters_.grads(), rows,
                              t.slots.plan, t.bodies, dout.view(), weight, drows.view(), dweight);
  }
  exchange_->dispatch_backward(x, std::move(drows), t.slots, t.choices, d, dx);  // 3.
  if (!zero_computation_.empty()) {
    const TimeSpan products(TimePart::products, "experts without a body backward");
    zero_computation_.backward(t.zero_computation, dy, t.choices.weight.view(), dx,
                               d.weight.view());
  }
  return d;
}

template <class S>
void MoeLayer<S>::attend_with(std::unique_ptr<ExpertAttention<S>> attention) {
  attention_ = std::move(attention);
}

template <class S>
void MoeLayer<S>::attend(const Pass& pass, View<const S> x, MoeTape<S>& t) {
  const TimeSpan time(TimePart::mixer, "experts of attention");
  const Plan& plan = t.slots.plan;
  const ExpertParameters<S>& e = expert_parameters_;
  Array<S> q(backend_, plan.slots, config().width);
  backend_.grouped_linear(std::as_const(t.slots.rows).view(), e.up.weight(), plan, q.view(), 0);
  t.attended = attention_->forward(pass, x, plan, std::as_const(q).view());
  const Array<S> heads = attention_->heads(*t.attended, plan);
  backend_.grouped_linear(heads.view(), e.down.weight(), plan, t.slots.out.view(), 0);
}

// From what the output matrices gave to the queries; sets dx to what arrives by keys and values.
template <class S>
Array<S> MoeLayer<S>::heads_backward(const MoeTape<S>& t, View<const S> x, View<const S> dout,
                                     View<S> dx) {
  const Plan& plan = t.slots.plan;
  ExpertParameters<S>& e = expert_parameters_;
  const Array<S> heads = attention_->heads(*t.attended, plan);
  if (!e.down.grad().empty())
    backend_.grouped_linear_dw(dout, heads.view(), plan, e.down.grad());
  Array<S> dheads(backend_, plan.slots, heads.cols());
  backend_.grouped_linear_dx(dout, e.down.weight(), plan, dheads.view(), 0);
  return attention_->backward(*t.attended, plan, x, std::as_const(dheads).view(), dx);
}

template <class S>
ChoiceGradients<S> MoeLayer<S>::attend_backward(const MoeTape<S>& t, View<const S> x,
                                                View<const S> dy, View<S> dx) {
  const TimeSpan time(TimePart::mixer, "experts of attention backward");
  const Plan& plan = t.slots.plan;
  ExpertParameters<S>& e = expert_parameters_;
  ChoiceGradients<S> d;
  d.weight = Array<S>(backend_, t.choices.weight.rows(), t.choices.weight.cols());
  Array<S> dout(backend_, plan.slots, dy.cols);
  backend_.combine_backward(dy, t.slots.out.view(), plan, t.choices.weight.view(), dout.view(),
                            d.weight.view());
  const Array<S> dq = heads_backward(t, x, std::as_const(dout).view(), dx);
  const Array<S> rows = exchange_->rows_again(x, t.choices, t.slots);
  if (!e.up.grad().empty())
    backend_.grouped_linear_dw(dq.view(), rows.view(), plan, e.up.grad());
  Array<S> drows(backend_, plan.slots, x.cols);
  backend_.grouped_linear_dx(dq.view(), e.up.weight(), plan, drows.view(), 0);
  backend_.combine(std::as_const(drows).view(), plan, {}, dx, 1);
  return d;
}

// 6. shared expert
template <class S>
void MoeLayer<S>::share(const Pass& pass, View<const S> x, View<S> y, SharedTape<S>& t) {
  const TimeSpan time(TimePart::products, "shared expert");
  t.out = Array<S>(backend_, x.rows, x.cols);
  shared_.forward(pass.batch, x, t.out.view(), t.body);
  if (shared_gate_.empty())
    return backend_.add(t.out.view(), y, 1);
  t.gate = Array<S>(backend_, x.rows, 1);
  backend_.linear(x, shared_gate_.weight(), t.gate.view(), 0);
  backend_.sigmoid_gate(t.gate.view(), t.out.view(), y);
}

template <class S>
void MoeLayer<S>::share_backward(const SharedTape<S>& t, View<const S> x, View<const S> dy,
                                 View<S> dx) {
  const TimeSpan time(TimePart::products, "shared expert backward");
  Array<S> dshared(backend_, x.rows, x.cols);
  Array<S> part(backend_, x.rows, x.cols);
  Array<S> dgate(backend_, x.rows, 1);
  View<const S> arriving = dy;
  if (!shared_gate_.empty()) {
    backend_.sigmoid_gate_backward(dy, t.gate.view(), t.out.view(), dgate.view(), dshared.view());
    backend_.linear_dx(dgate.view(), shared_gate_.weight(), dx, 1);
    if (!shared_gate_.grad().empty())
      backend_.linear_dw(dgate.view(), x, shared_gate_.grad());
    arriving = dshared.view();
  }
  shared_.backward(t.body, x, arriving, part.view());
  backend_.add(part.view(), dx, 1);
}

template <class S>
Array<S> MoeLayer<S>::balance_across(const Pass& pass, std::span<MoeTape<S>* const> tapes) {
  if (tapes.empty())
    return {};
  const TimeSpan time(TimePart::routing, "balance losses of all layers");
  const std::vector<GateTape<S>*> layers(tapes.begin(), tapes.end());
  return layers[0]->gate->balance_across(pass, layers);
}
template <class S>
void MoeLayer<S>::read_sums(View<const S> on_host, std::span<MoeTape<S>* const> tapes) {
  for (std::size_t l = 0; l < tapes.size(); ++l)
    tapes[l]->gate->read_sums(on_host.slice(Index(l), 1).flat(), *tapes[l]);
}
template <class S>
int MoeLayer<S>::step_balancers() const {
  return rules_->step_balancers();
}
template <class S>
void MoeLayer<S>::fetch_routing(MoeTape<S>& t) const {
  t.gate->fetch(t);
}
template <class S>
RoutingSums MoeLayer<S>::routing_sums(const MoeTape<S>& t) const {
  return t.gate->sums(t);
}

template <class S>
void MoeLayer<S>::borrow(ExpertLoan* loan) {
  loan_ = crossing_ ? nullptr : loan;
  if (crossing_)
    crossing_->borrow(loan);
}

template <class S>
bool MoeLayer<S>::weighs_outputs() const {
  return !config().weight_on_input && !capability<Mixing>(router());
}

template <class S>
void MoeLayer<S>::refuse_sharing(Send send) const {
  if (attention_) {
    throw Error(Exit::usage,
                "experts of attention see the rows of their own batch and cannot be shared out")
        .hint("--ep 1");
  }
  if (send != Send::rows && !weighs_outputs()) {
    throw Error(Exit::usage,
                concat("rows cannot be sent once for all choices of a token: those of this model ",
                       config().weight_on_input ? "are weighed by choice before they cross"
                                                : "are mixtures of tokens"))
        .hint("--ep-send rows");
  }
}

template <class S>
void MoeLayer<S>::share_out(Comm& group, int number, const CrossingWay& way) {
  refuse_sharing(way.send);
  crossing_ = std::make_unique<Crossing<S>>(backend_, group, number, config().experts,
                                            weighs_outputs(), expert_parameters_, way);
}

template <class S>
void MoeLayer<S>::serve(bool training, CrossingTape<S>& t) {
  const TimeSpan time(TimePart::exchange, "cross to experts");
  const Index width = config().expert_inputs();
  if (!crossing_) {
    const OnLoan loan(loan_, {});
    return;
  }
  crossing_->forward({}, {nullptr, 0, width}, training, t, {nullptr, 0, width});
}
template <class S>
void MoeLayer<S>::serve_backward(const CrossingTape<S>& t) {
  const TimeSpan time(TimePart::exchange, "cross to experts backward");
  const Index width = config().expert_inputs();
  if (!crossing_) {
    const OnLoan loan(loan_, {});
    return;
  }
  crossing_->backward({}, {nullptr, 0, width}, {nullptr, 0, width}, {}, t, {nullptr, 0, width}, {});
}

template <class S>
void MoeLayer<S>::knock_out(std::vector<int> experts, bool renormalise) {
  for (const int e : experts) {
    if (e < 0 || e >= config().experts) {
      throw Error(Exit::usage,
                  concat("there is no expert ", e, " among 0 to ", config().experts - 1));
    }
  }
  if (capability<Mixing>(router()) && !experts.empty()) {
    throw Error(
        Exit::usage,
        concat(config().router,
               " mixes all experts into every output, so none can be left out of a choice"));
  }
  rules_->missing = std::move(experts);
  rules_->renormalise = renormalise;
}

template <class S>
void MoeLayer<S>::trim() {
  if (config().widths.empty() && config().all_ffn())
    return;
  // rows: hidden units stand one below the other
  const auto cut = [&](Parameter<S>& p, bool rows, bool whole) {
    if (p.empty() || !p.stored() || p.made_when_read())
      return;
    Matrix<S> host = p.to_host();
    const Index block = host.rows() / config().experts;
    for (int e = 0; e < config().experts; ++e) {
      const Index width = config().width_of(e);
      for (Index r = 0; r < block; ++r) {
        for (Index c = 0; c < host.cols(); ++c) {
          if (whole ? width == 0 : (rows ? r : c) >= width)
            host(e * block + r, c) = S(0);
        }
      }
    }
    p.set(std::as_const(host).view());
  };
  cut(expert_parameters_.gate, true, false);
  cut(expert_parameters_.up, true, false);
  cut(expert_parameters_.down, false, false);
  cut(expert_parameters_.gate_bias, false, false);
  cut(expert_parameters_.up_bias, false, false);
  cut(expert_parameters_.down_bias, false, true);
}

template <class S>
Matrix<S> MoeLayer<S>::outputs_of_all(View<const S> x) {
  if (crossing_)
    throw Error(Exit::bug, "outputs of all experts were asked for where some are on other ranks");
  if (attention_)
    throw Error(Exit::bug, "outputs of experts of attention were asked for without their batch");
  Matrix<int> all(x.rows, config().experts);
  for (Index t = 0; t < x.rows; ++t) {
    for (int e = 0; e < config().experts; ++e)
      all(t, e) = e;
  }
  const Array<int> kept(backend_, std::as_const(all).view());
  const Plan plan = backend_.plan(kept.view(), config().experts);
  const Array<S> narrow = latent_in_.empty() ? Array<S>{} : product(x, latent_in_);
  const View<const S> read = latent_in_.empty() ? x : narrow.view();
  Array<S> sorted(backend_, plan.slots, read.cols);
  Array<S> out(backend_, plan.slots, read.cols);
  ExpertTape<S> tape;
  backend_.dispatch(read, plan, sorted.view());
  expert_parameters_.forward(backend_, sorted.view(), plan, tape, out.view());
  if (!latent_out_.empty())
    out = product(std::as_const(out).view(), latent_out_);
  Matrix<S> host = out.to_host();
  if (zero_computation_.empty())
    return host;
  Matrix<S> rows(x.rows, x.cols);
  backend_.to_host(x.data, rows.data(), std::size_t(rows.size()) * sizeof(S));
  zero_computation_.outputs_of_all(rows, host);
  return host;
}

template <class S>
void MoeLayer<S>::stepped(std::span<const std::int64_t> global_counts, std::int64_t global_tokens) {
  for (const auto& b : balancers())
    b->stepped(router(), global_counts, global_tokens);
}

template <class S>
void MoeLayer<S>::take_seen(std::size_t b, std::span<const double> seen) {
  balancers()[b]->take(seen);
}

template <class S>
std::vector<State> MoeLayer<S>::state() {
  std::vector<State> all;
  for (const auto& [name, numbers] : router().state())
    all.emplace_back("router." + name, numbers);
  if (router().temperature_schedule.moves())
    all.emplace_back("router.temperature", std::span(&router().temperature, 1));
  for (const auto& b : balancers()) {
    for (const auto& [name, numbers] : b->state())
      all.emplace_back(concat("balance.", b->name(), ".", name), numbers);
  }
  return all;
}

template struct MoeTape<float>;
template struct MoeTape<double>;
template class MoeLayer<float>;
template class MoeLayer<double>;

}  // namespace moe
