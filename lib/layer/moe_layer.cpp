#include "lib/layer/moe_layer.h"

#include <algorithm>
#include <utility>

#include "lib/core/convert.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/router/excludes_experts.h"
#include "lib/router/reroutes.h"

namespace moe {
namespace {

// x times the jitter factors, in the backend's memory.
template <class S>
Array<S> jittered(Backend<S>& backend, View<const S> x, const Matrix<double>& factor) {
  Matrix<S> host(x.rows, x.cols);
  backend.to_host(x.data, host.data(), std::size_t(x.size()) * sizeof(S));
  for (Index i = 0; i < host.size(); ++i)
    host.data()[i] = S(double(host.data()[i]) * factor.data()[i]);
  return Array<S>(backend, std::as_const(host).view());
}

}  // namespace

template <class S>
MoeLayer<S>::MoeLayer(const LayerConfig& c, Backend<S>& backend, Storage experts)
    : config_(c), backend_(backend), device_(dynamic_cast<OnDevice<S>*>(&backend)) {
  router_ = make_router(c.router, c.experts, config_.router);
  capacity_ = make_capacity(c.capacity, config_.capacity);
  for (std::string& spec : config_.balance)
    balancers_.push_back(make_balancer(std::string(spec), spec));
  check();
  if (!c.widths.empty())
    config_.width = std::ranges::max(c.widths);
  if (!c.all_ffn()) {
    std::vector<double> room(std::size_t(c.experts), 1.0);
    eta_ = room;
    std::vector<std::uint8_t> zero(std::size_t(c.experts), 0);
    for (int e = 0; e < c.experts; ++e) {
      (c.type_of(e) == ExpertKind::ffn ? room : eta_)[std::size_t(e)] = c.zc_tau;
      zero[std::size_t(e)] = c.type_of(e) == ExpertKind::zero;
    }
    if (c.zc_capacity)
      capacity_->share_out(room);
    if (c.zc_exclude_zero)
      exclude_experts(*router_, zero);
  }
  for (const Projection& p : router_->projections()) {
    products_.emplace_back(backend, p, c.hidden, c.router_bias && products_.empty(),
                           c.gate_residual && products_.empty());
  }
  bodies_ = Bodies<S>(backend, "experts.", c.activation, c.experts, config_.width, c.hidden,
                      c.expert_bias, experts);
  light_ = LightExperts<S>(backend, c);
  if (c.shared_width > 0) {
    shared_ =
        FeedForward<S>(backend, "shared.", c.activation, c.shared_width, c.hidden, c.expert_bias);
  }
  if (c.shared_width > 0 && c.shared_gate)
    shared_gate_ = Parameter<S>(backend, "shared_gate.weight", {1, c.hidden});
}

// What cannot go together, in sentences that name both.
template <class S>
void MoeLayer<S>::check() {
  const LayerConfig& c = config_;
  const auto refuse = [](bool when, const std::string& sentence, const std::string& hint) {
    if (when)
      throw Error(Exit::usage, sentence).hint(hint);
  };
  check_experts(c);
  const bool scores = !router_->projections().empty();
  const bool mixes = capability<Mixing>(*router_) != nullptr;
  const Balancer* moves = nullptr;
  for (const auto& b : balancers_) {
    refuse(b->needs_scores() && !scores,
           concat("the balancer '", b->name(), "' needs a router with scores, and ", c.router,
                  " has none"),
           "--balance none");
    refuse(b->needs_scores() && mixes,
           concat("the balancer '", b->name(), "' evens out choices, and ", c.router,
                  " chooses nobody: its slots are even already"),
           "--balance none");
    refuse(b->moves_bias() && router_->correction_bias().empty(),
           concat("the balancer '", b->name(), "' moves a correction bias, and ", c.router,
                  " has none"),
           "--router sigmoid:k=2,bias=1");
    b->check(*router_);
    if (!b->moves_bias())
      continue;
    refuse(moves,
           concat("the balancers '", moves ? moves->name() : "", "' and '", b->name(),
                  "' both move the one correction bias"),
           "one of them");
    moves = b.get();
  }
  refuse(router_->facts().limits_load && capacity_->factor() > 0,
         concat(c.router, " bounds the load of experts itself, and ", c.capacity,
                " would cut it again"),
         "--capacity none");
  refuse(capacity_->reroutes() && !capability<Reroutes>(*router_),
         concat(c.capacity, " needs a router whose tokens rank all experts, and ", c.router,
                " does not"),
         "--router softmax:k=2 or sigmoid:k=2");
  refuse(c.gate_residual && (!scores || mixes),
         concat("gate_residual=1 adds to the logits of experts, and ", c.router, " has none"),
         "gate_residual=0");
  refuse(c.router_bias && scores && router_->projections()[0].cosine,
         concat("router_bias=1 shifts a product, and the scores of ", c.router, " are cosines"),
         "router_bias=0");
  refuse(mixes && !c.all_ffn(),
         concat(c.router,
                " gives every expert its slots, also those of expert_types that compute nothing"),
         "expert_types=ffn");
  refuse(mixes && c.weight_on_input,
         concat("weight_on_input=1 multiplies the input of a chosen expert, and ", c.router,
                " chooses nobody"),
         "weight_on_input=0");
}

template <class S>
void MoeLayer<S>::collect(std::vector<Parameter<S>*>& all) {
  for (RouterProduct<S>& p : products_)
    p.collect(all);
  bodies_.collect(all);
  light_.collect(all);
  if (config_.shared_width > 0)
    shared_.collect(all);
  if (!shared_gate_.empty())
    all.push_back(&shared_gate_);
}

// 1. score: z = (W (x*u) + b + R) / tau, one matrix a projection
template <class S>
void MoeLayer<S>::score(const Pass& pass, View<const S> x, MoeTape<S>& t) {
  Array<S> shaken;
  if (router_->jitter > 0 && (pass.training || (pass.given && !pass.given->jitter.empty()))) {
    t.jitter = pass.given && !pass.given->jitter.empty() ? pass.given->jitter
                                                         : Matrix<double>(x.rows, x.cols);
    if (!pass.given || pass.given->jitter.empty()) {
      for (double& u : t.jitter.flat())
        u = 1 + router_->jitter * (2 * pass.rng->uniform() - 1);
    }
    shaken = jittered(backend_, x, t.jitter);
  }
  t.products.resize(products_.size());
  for (std::size_t i = 0; i < products_.size(); ++i) {
    const bool tempered = products_[i].projection().tempered;
    const View<const S> u = tempered && !t.jitter.empty() ? View<const S>(shaken.view()) : x;
    t.input.scores.push_back(
        products_[i].forward(u, tempered ? router_->temperature : 1, pass.previous, t.products[i]));
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
  if (!missing_.empty() && pass.training)
    throw Error(Exit::bug, "a layer with experts knocked out cannot train");
  if (!missing_.empty())
    drop_missing(t.routing);
  if (capacity_->identity_output()) {
    t.untouched.assign(std::size_t(t.routing.tokens()), 0);
    for (Index n = 0; n < t.routing.tokens(); ++n) {
      const auto row = t.routing.computed().row(n);
      t.untouched[std::size_t(n)] =
          pass.batch.is_valid(n) && std::ranges::all_of(row, [](int e) { return e < 0; });
    }
  }
  if (balances())
    balance(pass, t);
}

template <class S>
void MoeLayer<S>::balance(const Pass& pass, MoeTape<S>& t) {
  t.probability = router_->probabilities(t.input, t.routing);
  t.dprob = Matrix<double>(t.probability.rows(), t.probability.cols());
  t.dlogits = Matrix<double>(t.probability.rows(), t.probability.cols());
  t.dnoise = Matrix<double>(router_->facts().learns_noise ? t.probability.rows() : 0,
                            t.probability.cols());
  t.dweight = Matrix<double>(t.routing.tokens(), t.routing.choices());
  const BalanceInput in = balance_input(pass, t);
  for (const auto& b : balancers_) {
    const bool later = b->across_layers() && pass.layers_follow;
    t.losses.push_back(later ? 0
                             : b->loss(in, pass.loss_scale * b->reduction(pass.layers),
                                       {t.dprob, t.dlogits, t.dnoise, t.dweight}));
    if (pass.training)
      b->seen(*router_, in);
  }
}

template <class S>
BalanceInput MoeLayer<S>::balance_input(const Pass& pass, const MoeTape<S>& t) const {
  return {t.input, t.routing, t.probability, config_.experts, pass.other_counts, eta_};
}

template <class S>
Array<S> MoeLayer<S>::balance_across(const Pass& pass, std::span<MoeLayer* const> layers,
                                     std::span<MoeTape<S>* const> tapes) {
  if (layers.empty())
    return {};
  if (tapes[0]->there)
    return balance_there(pass, layers, tapes);
  if (!layers[0]->balances())
    return {};
  std::vector<BalanceInput> in;
  std::vector<BalanceGrad> grad;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    MoeTape<S>& t = *tapes[l];
    in.push_back(layers[l]->balance_input(pass, t));
    grad.push_back({t.dprob, t.dlogits, t.dnoise, t.dweight});
  }
  // the layers of a model have the same ones
  for (std::size_t b = 0; b < layers[0]->balancers_.size(); ++b) {
    const Balancer& balancer = *layers[0]->balancers_[b];
    if (!balancer.across_layers())
      continue;
    const std::vector<double> shares = balancer.losses(in, pass.loss_scale, grad);
    for (std::size_t l = 0; l < layers.size(); ++l)
      tapes[l]->losses[b] = shares[l];
  }
  return {};
}

template <class S>
void MoeLayer<S>::knock_out(std::vector<int> experts, bool renormalise) {
  for (const int e : experts) {
    if (e < 0 || e >= config_.experts) {
      throw Error(Exit::usage,
                  concat("there is no expert ", e, " among 0 to ", config_.experts - 1));
    }
  }
  if (capability<Mixing>(*router_) && !experts.empty()) {
    throw Error(
        Exit::usage,
        concat(config_.router,
               " mixes all experts into every output, so none can be left out of a choice"));
  }
  missing_ = std::move(experts);
  renormalise_ = renormalise;
}

template <class S>
void MoeLayer<S>::drop_missing(Routing& r) const {
  Matrix<int> kept = r.computed();
  Matrix<double> weight = r.combined();
  for (Index t = 0; t < kept.rows(); ++t) {
    double before = 0;
    double left = 0;
    for (Index j = 0; j < kept.cols(); ++j) {
      const bool gone = std::ranges::find(missing_, kept(t, j)) != missing_.end();
      before += weight(t, j);
      if (gone) {
        kept(t, j) = -1;
        weight(t, j) = 0;
      }
      left += weight(t, j);
    }
    for (Index j = 0; renormalise_ && left > 0 && j < kept.cols(); ++j)
      weight(t, j) *= before / left;
  }
  r.kept = std::move(kept);
  r.combine = std::move(weight);
}

template <class S>
void MoeLayer<S>::forward(const Pass& pass, View<const S> x, View<S> y, MoeTape<S>& t) {
  if (routes_there(pass)) {
    route_there(pass, x, t);
  } else {
    score(pass, x, t);
    route(pass, t);
  }
  if (capability<Mixing>(*router_))
    mix(x, y, t);
  else
    compute(pass, x, y, t);
  if (t.there)
    count_there(pass, t);
  if (config_.shared_width > 0)
    share(pass, x, y, t);
}

template <class S>
void MoeLayer<S>::backward(const Pass& pass, const MoeTape<S>& t, View<const S> x, View<const S> dy,
                           View<S> dx) {
  if (t.there) {
    const Array<S> dweight = compute_backward(t, x, dy, dx);
    if (config_.shared_width > 0)
      share_backward(t, x, dy, dx);
    return backward_there(pass, t, x, dweight.view(), dx);
  }
  std::vector<Matrix<double>> dscores;
  for (const auto& s : t.input.scores)
    dscores.emplace_back(s.rows(), s.cols());
  Matrix<double> dweight;
  if (capability<Mixing>(*router_)) {
    mix_backward(t, x, dy, dx, dscores);
  } else {
    dweight =
        capacity_->backward(t.routing, converted<double>(compute_backward(t, x, dy, dx).to_host()));
  }
  if (config_.shared_width > 0)
    share_backward(t, x, dy, dx);
  if (products_.empty())
    return;
  // dweight may be wider: gradients of moved slots lie beside these
  for (Index n = 0; n < t.dweight.rows(); ++n) {
    for (Index j = 0; j < t.dweight.cols(); ++j)
      dweight(n, j) += t.dweight(n, j);
  }
  router_->backward(t.input, t.routing, dweight, t.dprob, dscores);
  score_backward(pass, t, x, std::move(dscores), dx);
}

template <class S>
Array<S> MoeLayer<S>::rows_of_slots(View<const S> x, const MoeTape<S>& t) {
  Array<S> sorted(backend_, t.plan.slots, x.cols);
  backend_.dispatch(x, t.plan, sorted.view());
  if (config_.weight_on_input)
    backend_.scale_slots(sorted.view(), t.plan, t.weight.view());
  return sorted;
}

// y = sum of the chosen experts. Of size (S,H) nothing is kept for backward: rows are gathered
// again, and the weights' gradient comes from hidden units.
template <class S>
void MoeLayer<S>::compute(const Pass& pass, View<const S> x, View<S> y, MoeTape<S>& t) {
  Array<int> kept;  // 3. dispatch
  if (!t.there) {
    const Matrix<int> bodied = light_.without(t.routing.computed());
    const Matrix<S> weight = converted<S>(t.routing.combined());
    kept = Array<int>(backend_, bodied.view());
    t.weight = Array<S>(backend_, weight.view());
  }
  t.plan =
      backend_.plan(t.there ? std::as_const(t.there->expert).view() : std::as_const(kept).view(),
                    config_.experts);
  t.out = Array<S>(backend_, t.plan.slots, config_.hidden);
  const Array<S> sorted = rows_of_slots(x, t);
  bodies_.forward(backend_, sorted.view(), t.plan, t.bodies, t.out.view());  // 4. compute
  // 5. combine
  backend_.combine(t.out.view(), t.plan,
                   config_.weight_on_input ? View<const S>{} : t.weight.view(), y, 0);
  if (pass.training)
    t.out = {};
  if (!light_.empty())
    light_.forward(x, t.routing.computed(), t.weight.view(), y, t.light);
  for (std::size_t n = 0; n < t.untouched.size(); ++n) {
    if (t.untouched[n])
      backend_.add(x.slice(Index(n), 1), y.slice(Index(n), 1), 1);
  }
}

template <class S>
Array<S> MoeLayer<S>::compute_backward(const MoeTape<S>& t, View<const S> x, View<const S> dy,
                                       View<S> dx) {
  const Index slots = t.plan.slots;
  const Index hidden = config_.hidden;
  Array<S> dout(backend_, slots, hidden);
  Array<S> dsorted(backend_, slots, hidden);
  Array<S> dweight(backend_, t.weight.rows(), t.weight.cols());
  const bool on_input = config_.weight_on_input;
  const Array<S> sorted = rows_of_slots(x, t);
  backend_.dispatch(dy, t.plan, dout.view());  // 5. every slot gets its token's; 4. weighs it
  backend_.experts_backward(bodies_.weights(), bodies_.grads(), sorted.view(), t.plan, t.bodies,
                            dout.view(), on_input ? View<const S>{} : t.weight.view(),
                            dsorted.view(), on_input ? View<S>{} : dweight.view());  // 4.
  if (on_input) {  // v = dE at w x: dw = v . x, dx = w v
    Array<S> scaled(backend_, slots, hidden);
    backend_.combine_backward(x, dsorted.view(), t.plan, {}, scaled.view(), dweight.view());
    backend_.scale_slots(dsorted.view(), t.plan, t.weight.view());
  }
  backend_.combine(dsorted.view(), t.plan, {}, dx, 0);  // 3. every slot back to its token
  if (!light_.empty())
    light_.backward(t.light, dy, t.weight.view(), dx, dweight.view());
  for (std::size_t n = 0; n < t.untouched.size(); ++n) {
    if (t.untouched[n])
      backend_.add(dy.slice(Index(n), 1), dx.slice(Index(n), 1), 1);
  }
  return dweight;
}

// 6. shared expert
template <class S>
void MoeLayer<S>::share(const Pass& pass, View<const S> x, View<S> y, MoeTape<S>& t) {
  t.shared_out = Array<S>(backend_, x.rows, x.cols);
  shared_.forward(pass.batch, x, t.shared_out.view(), t.shared);
  if (shared_gate_.empty())
    return backend_.add(t.shared_out.view(), y, 1);
  t.shared_gate = Array<S>(backend_, x.rows, 1);
  backend_.linear(x, shared_gate_.weight(), t.shared_gate.view(), 0);
  backend_.sigmoid_gate(t.shared_gate.view(), t.shared_out.view(), y);
}

template <class S>
void MoeLayer<S>::share_backward(const MoeTape<S>& t, View<const S> x, View<const S> dy,
                                 View<S> dx) {
  Array<S> dshared(backend_, x.rows, x.cols);
  Array<S> part(backend_, x.rows, x.cols);
  Array<S> dgate(backend_, x.rows, 1);
  View<const S> arriving = dy;
  if (!shared_gate_.empty()) {
    backend_.sigmoid_gate_backward(dy, t.shared_gate.view(), t.shared_out.view(), dgate.view(),
                                   dshared.view());
    backend_.linear_dx(dgate.view(), shared_gate_.weight(), dx, 1);
    if (!shared_gate_.grad().empty())
      backend_.linear_dw(dgate.view(), x, shared_gate_.grad());
    arriving = dshared.view();
  }
  shared_.backward(t.shared, x, arriving, part.view());
  backend_.add(part.view(), dx, 1);
}

// 1. from the scores to the projections and x
template <class S>
void MoeLayer<S>::score_backward(const Pass& pass, const MoeTape<S>& t, View<const S> x,
                                 std::vector<Matrix<double>> dscores, View<S> dx) {
  for (Index n = 0; n < t.dlogits.size(); ++n)
    dscores[0].data()[n] += t.dlogits.data()[n];
  for (Index n = 0; n < t.dnoise.size(); ++n)
    dscores[1].data()[n] += t.dnoise.data()[n];
  if (pass.dlogits) {
    for (Index n = 0; n < pass.dlogits->size(); ++n)
      dscores[0].data()[n] += pass.dlogits->data()[n];
  }
  if (pass.dscores)
    *pass.dscores = dscores;
  const Array<S> shaken = t.jitter.empty() ? Array<S>{} : jittered(backend_, x, t.jitter);
  for (std::size_t i = 0; i < products_.size(); ++i) {
    const bool tempered = products_[i].projection().tempered;
    const double tau = tempered ? router_->temperature : 1;
    if (!tempered || t.jitter.empty()) {
      products_[i].backward(x, tau, pass.previous, t.products[i], std::move(dscores[i]), dx,
                            pass.dprevious);
      continue;
    }
    Array<S> du = Array<S>::zeros(backend_, x.rows, x.cols);
    products_[i].backward(shaken.view(), tau, pass.previous, t.products[i], std::move(dscores[i]),
                          du.view(), pass.dprevious);
    backend_.add(jittered(backend_, View<const S>(du.view()), t.jitter).view(), dx, 1);
  }
}

template <class S>
void MoeLayer<S>::trim() {
  if (config_.widths.empty() && config_.all_ffn())
    return;
  // rows: hidden units stand one below the other
  const auto cut = [&](Parameter<S>& p, bool rows, bool whole) {
    if (p.empty() || !p.stored())
      return;
    Matrix<S> host = p.to_host();
    const Index block = host.rows() / config_.experts;
    for (int e = 0; e < config_.experts; ++e) {
      for (Index r = 0; r < block; ++r) {
        for (Index c = 0; c < host.cols(); ++c) {
          if (whole ? config_.width_of(e) == 0 : (rows ? r : c) >= config_.width_of(e))
            host(e * block + r, c) = S(0);
        }
      }
    }
    p.set(std::as_const(host).view());
  };
  cut(bodies_.gate, true, false);
  cut(bodies_.up, true, false);
  cut(bodies_.down, false, false);
  cut(bodies_.gate_bias, false, false);
  cut(bodies_.up_bias, false, false);
  cut(bodies_.down_bias, false, true);
}

template <class S>
Matrix<S> MoeLayer<S>::outputs_of_all(View<const S> x) {
  Matrix<int> all(x.rows, config_.experts);
  for (Index t = 0; t < x.rows; ++t) {
    for (int e = 0; e < config_.experts; ++e)
      all(t, e) = e;
  }
  const Array<int> kept(backend_, std::as_const(all).view());
  const Plan plan = backend_.plan(kept.view(), config_.experts);
  Array<S> sorted(backend_, plan.slots, x.cols);
  Array<S> out(backend_, plan.slots, x.cols);
  ExpertTape<S> tape;
  backend_.dispatch(x, plan, sorted.view());
  bodies_.forward(backend_, sorted.view(), plan, tape, out.view());
  Matrix<S> host = out.to_host();
  if (light_.empty())
    return host;
  Matrix<S> rows(x.rows, x.cols);
  backend_.to_host(x.data, rows.data(), std::size_t(rows.size()) * sizeof(S));
  light_.outputs_of_all(rows, host);
  return host;
}

template <class S>
void MoeLayer<S>::stepped(std::span<const std::int64_t> global_counts, std::int64_t global_tokens) {
  for (const auto& b : balancers_)
    b->stepped(*router_, global_counts, global_tokens);
}

template <class S>
std::vector<State> MoeLayer<S>::state() {
  std::vector<State> all;
  for (const auto& [name, numbers] : router_->state())
    all.emplace_back("router." + name, numbers);
  if (router_->cooling.moves())
    all.emplace_back("router.temperature", std::span(&router_->temperature, 1));
  for (const auto& b : balancers_) {
    for (const auto& [name, numbers] : b->state())
      all.emplace_back(concat("balance.", b->name(), ".", name), numbers);
  }
  return all;
}

template class MoeLayer<float>;
template class MoeLayer<double>;

}  // namespace moe
