#include "lib/layer/moe_layer.h"

#include <algorithm>
#include <utility>

#include "lib/core/error.h"

namespace moe {
namespace {

template <class S>
Matrix<S> narrowed(const Matrix<double>& m) {
  Matrix<S> out(m.rows(), m.cols());
  for (Index i = 0; i < m.size(); ++i) out.data()[i] = S(m.data()[i]);
  return out;
}

// x times the jitter factors, in the backend's memory.
template <class S>
Array<S> jittered(Backend<S>& backend, View<const S> x, const Matrix<double>& factor) {
  Matrix<S> host(x.rows, x.cols);
  backend.to_host(x.data, host.data(), std::size_t(x.size()) * sizeof(S));
  for (Index i = 0; i < host.size(); ++i) host.data()[i] = S(double(host.data()[i]) * factor.data()[i]);
  return Array<S>(backend, std::as_const(host).view());
}

}  // namespace

template <class S>
MoeLayer<S>::MoeLayer(const LayerConfig& c, Backend<S>& backend) : config_(c), backend_(backend) {
  router_ = make_router(c.router, c.experts, config_.router);
  capacity_ = make_capacity(c.capacity, config_.capacity);
  for (std::string& spec : config_.balance) {
    const std::string given = spec;
    balancers_.push_back(make_balancer(given, spec));
    if (balancers_.back()->needs_scores() && router_->projections().empty())
      throw Error(Exit::usage, concat("the balancer '", balancers_.back()->name(), "' needs a router with scores, and ", c.router, " has none")).hint("--balance none");
    balancers_.back()->check(*router_);
    if (balancers_.back()->name() == "bias" && router_->correction_bias().empty())
      throw Error(Exit::usage, concat("the balancer 'bias' moves a correction bias, and ", c.router, " has none")).hint("--router sigmoid:k=2,bias=1");
  }
  if (router_->limits_itself() && capacity_->factor() > 0)
    throw Error(Exit::usage, concat(config_.router, " bounds the load of experts itself, and ", config_.capacity, " would cut it again")).hint("--capacity none");
  if (capacity_->reroutes() && !router_->reroutable())
    throw Error(Exit::usage, concat(config_.capacity, " needs a router whose tokens rank all experts, and ", config_.router, " does not")).hint("--router softmax:k=2 or sigmoid:k=2");
  for (const Projection& p : router_->projections())
    projections_.emplace_back(backend, "router." + p.name, std::vector<Index>{p.rows, c.hidden});
  if (c.router_bias && !projections_.empty())
    router_bias_ = Parameter<S>(backend, "router.bias", {projections_[0].dims()[0]}, ParameterKind::vector);
  bodies_ = Bodies<S>(backend, "experts.", c.activation, c.experts, c.width, c.hidden, c.expert_bias);
  if (c.shared_width > 0) shared_ = FeedForward<S>(backend, "shared.", c.activation, c.shared_width, c.hidden, c.expert_bias);
  if (c.shared_width > 0 && c.shared_gate) shared_gate_ = Parameter<S>(backend, "shared_gate.weight", {1, c.hidden});
}

template <class S>
void MoeLayer<S>::collect(std::vector<Parameter<S>*>& all) {
  for (Parameter<S>& p : projections_) all.push_back(&p);
  if (!router_bias_.empty()) all.push_back(&router_bias_);
  bodies_.collect(all);
  if (config_.shared_width > 0) shared_.collect(all);
  if (!shared_gate_.empty()) all.push_back(&shared_gate_);
}

// 1. score: z = (W (x*u) + b) / tau, one matrix a projection
template <class S>
void MoeLayer<S>::score(const Pass& pass, View<const S> x, MoeTape<S>& t) {
  const auto kinds = router_->projections();
  Array<S> shaken;
  if (router_->jitter > 0 && (pass.training || (pass.given && !pass.given->jitter.empty()))) {
    t.jitter = pass.given && !pass.given->jitter.empty() ? pass.given->jitter : Matrix<double>(x.rows, x.cols);
    if (!pass.given || pass.given->jitter.empty())
      for (double& u : t.jitter.flat()) u = 1 + router_->jitter * (2 * pass.rng->uniform() - 1);
    shaken = jittered(backend_, x, t.jitter);
  }
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    Array<S> z(backend_, x.rows, kinds[i].rows);
    backend_.linear(kinds[i].tempered && !t.jitter.empty() ? View<const S>(shaken.view()) : x, projections_[i].weight(), z.view(), 0);
    if (i == 0 && !router_bias_.empty()) backend_.add_bias(router_bias_.value(), z.view());
    const Matrix<S> host = z.to_host();
    Matrix<double> wide(host.rows(), host.cols());
    const double tau = kinds[i].tempered ? router_->temperature : 1;
    for (Index n = 0; n < host.size(); ++n) wide.data()[n] = tau == 1 ? double(host.data()[n]) : double(host.data()[n]) / tau;
    t.input.scores.push_back(std::move(wide));
  }
}

// 2. route, cut by capacity, weigh the balance losses
template <class S>
void MoeLayer<S>::route(const Pass& pass, MoeTape<S>& t) {
  t.input.training = pass.training;
  t.input.rng = pass.rng;
  t.input.given = pass.given;
  t.routing = router_->route(t.input);
  capacity_->apply(t.routing, t.input, *router_);
  if (!missing_.empty() && pass.training) throw Error(Exit::bug, "a layer with experts knocked out cannot train");
  if (!missing_.empty()) drop_missing(t.routing);
  if (capacity_->identity_output()) {
    t.untouched.assign(std::size_t(t.routing.tokens()), 0);
    for (Index n = 0; n < t.routing.tokens(); ++n) {
      const auto row = t.routing.computed().row(n);
      t.untouched[std::size_t(n)] = pass.batch.is_valid(n) && std::ranges::all_of(row, [](int e) { return e < 0; });
    }
  }
  if (balancers_.empty() || projections_.empty()) return;
  t.probability = router_->probabilities(t.input, t.routing);
  t.dprob = Matrix<double>(t.probability.rows(), t.probability.cols());
  t.dlogits = Matrix<double>(t.probability.rows(), t.probability.cols());
  t.dnoise = Matrix<double>(router_->learns_noise() ? t.probability.rows() : 0, t.probability.cols());
  t.dweight = Matrix<double>(t.routing.tokens(), t.routing.choices());
  const BalanceInput in{t.input, t.routing, t.probability, config_.experts, pass.other_counts};
  for (const auto& b : balancers_) t.losses.push_back(b->loss(in, pass.loss_scale, {t.dprob, t.dlogits, t.dnoise, t.dweight}));
}

template <class S>
void MoeLayer<S>::knock_out(std::vector<int> experts, bool renormalise) {
  for (const int e : experts)
    if (e < 0 || e >= config_.experts) throw Error(Exit::usage, concat("there is no expert ", e, " among 0 to ", config_.experts - 1));
  missing_ = std::move(experts), renormalise_ = renormalise;
}

template <class S>
void MoeLayer<S>::drop_missing(Routing& r) const {
  Matrix<int> kept = r.computed();
  Matrix<double> weight = r.combined();
  for (Index t = 0; t < kept.rows(); ++t) {
    double before = 0, left = 0;
    for (Index j = 0; j < kept.cols(); ++j) {
      const bool gone = std::ranges::find(missing_, kept(t, j)) != missing_.end();
      before += weight(t, j);
      if (gone) kept(t, j) = -1, weight(t, j) = 0;
      left += weight(t, j);
    }
    for (Index j = 0; renormalise_ && left > 0 && j < kept.cols(); ++j) weight(t, j) *= before / left;
  }
  r.kept = std::move(kept), r.combine = std::move(weight);
}

template <class S>
void MoeLayer<S>::forward(const Pass& pass, View<const S> x, View<S> y, MoeTape<S>& t) {
  score(pass, x, t);
  route(pass, t);
  const Array<int> kept(backend_, t.routing.computed().view());  // 3. dispatch
  const Matrix<S> weight = narrowed<S>(t.routing.combined());
  t.weight = Array<S>(backend_, weight.view());
  t.plan = backend_.plan(kept.view(), config_.experts);
  t.sorted = Array<S>(backend_, t.plan.slots, config_.hidden);
  t.out = Array<S>(backend_, t.plan.slots, config_.hidden);
  backend_.dispatch(x, t.plan, t.sorted.view());
  if (config_.weight_on_input) backend_.scale_slots(t.sorted.view(), t.plan, t.weight.view());
  backend_.experts(bodies_.weights(), t.sorted.view(), t.plan, t.bodies, t.out.view());  // 4. compute
  backend_.combine(t.out.view(), t.plan, config_.weight_on_input ? View<const S>{} : t.weight.view(), y, 0);  // 5. combine
  for (std::size_t n = 0; n < t.untouched.size(); ++n)
    if (t.untouched[n]) backend_.add(x.slice(Index(n), 1), y.slice(Index(n), 1), 1);
  if (config_.shared_width == 0) return;
  t.shared_out = Array<S>(backend_, x.rows, x.cols);  // 6. shared expert
  shared_.forward(pass.batch, x, t.shared_out.view(), t.shared);
  if (shared_gate_.empty()) return backend_.add(t.shared_out.view(), y, 1);
  t.shared_gate = Array<S>(backend_, x.rows, 1);
  backend_.linear(x, shared_gate_.weight(), t.shared_gate.view(), 0);
  backend_.sigmoid_gate(t.shared_gate.view(), t.shared_out.view(), y);
}

template <class S>
void MoeLayer<S>::backward(const Pass& pass, const MoeTape<S>& t, View<const S> x, View<const S> dy, View<S> dx) {
  const Index slots = t.plan.slots, hidden = config_.hidden;
  Array<S> dout(backend_, slots, hidden), dsorted(backend_, slots, hidden), dweight(backend_, t.weight.rows(), t.weight.cols());
  const bool on_input = config_.weight_on_input;
  backend_.combine_backward(dy, t.out.view(), t.plan, on_input ? View<const S>{} : t.weight.view(), dout.view(), on_input ? View<S>{} : dweight.view());  // 5.
  backend_.experts_backward(bodies_.weights(), bodies_.grads(), t.sorted.view(), t.plan, t.bodies, dout.view(), dsorted.view());  // 4.
  if (on_input) {  // v = dE at w x: dw = v . x, dx = w v
    Array<S> scaled(backend_, slots, hidden);
    backend_.combine_backward(x, dsorted.view(), t.plan, {}, scaled.view(), dweight.view());
    backend_.scale_slots(dsorted.view(), t.plan, t.weight.view());
  }
  backend_.combine(dsorted.view(), t.plan, {}, dx, 0);  // 3. every slot back to its token
  for (std::size_t n = 0; n < t.untouched.size(); ++n)
    if (t.untouched[n]) backend_.add(dy.slice(Index(n), 1), dx.slice(Index(n), 1), 1);
  if (config_.shared_width > 0) {  // 6.
    Array<S> dshared(backend_, x.rows, x.cols), part(backend_, x.rows, x.cols), dgate(backend_, x.rows, 1);
    View<const S> arriving = dy;
    if (!shared_gate_.empty()) {
      backend_.sigmoid_gate_backward(dy, t.shared_gate.view(), t.shared_out.view(), dgate.view(), dshared.view());
      backend_.linear_dx(dgate.view(), shared_gate_.weight(), dx, 1);
      if (!shared_gate_.grad().empty()) backend_.linear_dw(dgate.view(), x, shared_gate_.grad());
      arriving = dshared.view();
    }
    shared_.backward(t.shared, x, arriving, part.view());
    backend_.add(part.view(), dx, 1);
  }
  const Matrix<S> host = dweight.to_host();  // 2.
  Matrix<double> dcombine(host.rows(), host.cols());
  for (Index n = 0; n < host.size(); ++n) dcombine.data()[n] = double(host.data()[n]);
  score_backward(pass, t, x, capacity_->backward(t.routing, dcombine), dx);
}

// 1. through the router to its projections and x
template <class S>
void MoeLayer<S>::score_backward(const Pass& pass, const MoeTape<S>& t, View<const S> x, Matrix<double> dweight, View<S> dx) {
  const auto kinds = router_->projections();
  if (kinds.empty()) return;
  std::vector<Matrix<double>> dscores;
  for (const auto& s : t.input.scores) dscores.emplace_back(s.rows(), s.cols());
  for (Index n = 0; n < t.dweight.rows(); ++n)  // dweight may be wider: gradients of moved slots lie beside these
    for (Index j = 0; j < t.dweight.cols(); ++j) dweight(n, j) += t.dweight(n, j);
  router_->backward(t.input, t.routing, dweight, t.dprob, dscores);
  for (Index n = 0; n < t.dlogits.size(); ++n) dscores[0].data()[n] += t.dlogits.data()[n];
  for (Index n = 0; n < t.dnoise.size(); ++n) dscores[1].data()[n] += t.dnoise.data()[n];
  if (pass.dscores) *pass.dscores = dscores;
  const Array<S> shaken = t.jitter.empty() ? Array<S>{} : jittered(backend_, x, t.jitter);
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const double tau = kinds[i].tempered ? router_->temperature : 1;
    if (tau != 1)
      for (double& v : dscores[i].flat()) v /= tau;
    const Matrix<S> host = narrowed<S>(dscores[i]);
    const Array<S> dz(backend_, host.view());
    const bool jitter = kinds[i].tempered && !t.jitter.empty();
    if (!projections_[i].grad().empty()) backend_.linear_dw(dz.view(), jitter ? shaken.view() : x, projections_[i].grad());
    if (i == 0 && !router_bias_.grad().empty()) backend_.bias_grad(dz.view(), router_bias_.grad());
    if (!jitter) {
      backend_.linear_dx(dz.view(), projections_[i].weight(), dx, 1);
      continue;
    }
    Array<S> du(backend_, x.rows, x.cols);
    backend_.linear_dx(dz.view(), projections_[i].weight(), du.view(), 0);
    backend_.add(jittered(backend_, View<const S>(du.view()), t.jitter).view(), dx, 1);
  }
}

template <class S>
Matrix<S> MoeLayer<S>::outputs_of_all(View<const S> x) {
  Matrix<int> all(x.rows, config_.experts);
  for (Index t = 0; t < x.rows; ++t)
    for (int e = 0; e < config_.experts; ++e) all(t, e) = e;
  const Array<int> kept(backend_, std::as_const(all).view());
  const Plan plan = backend_.plan(kept.view(), config_.experts);
  Array<S> sorted(backend_, plan.slots, x.cols), out(backend_, plan.slots, x.cols);
  ExpertTape<S> tape;
  backend_.dispatch(x, plan, sorted.view());
  backend_.experts(bodies_.weights(), sorted.view(), plan, tape, out.view());
  return out.to_host();
}

template <class S>
void MoeLayer<S>::stepped(std::span<const std::int64_t> global_counts, std::int64_t global_tokens) {
  for (const auto& b : balancers_) b->stepped(*router_, global_counts, global_tokens);
}

template <class S>
std::vector<State> MoeLayer<S>::state() {
  std::vector<State> all;
  for (const auto& [name, numbers] : router_->state()) all.emplace_back("router." + name, numbers);
  for (const auto& b : balancers_)
    for (const auto& [name, numbers] : b->state()) all.emplace_back(concat("balance.", b->name(), ".", name), numbers);
  return all;
}

template class MoeLayer<float>;
template class MoeLayer<double>;

}  // namespace moe
