// The way of routing that never leaves the device: scores, choice, weights and their backward are
// operations of OnDevice, and the host learns how many choices every expert got (the plan tells it)
// and, after the last layer, sums over tokens. For routers whose rule is Router::top_k(), balancers
// with losses by_sums(), no capacity rule, no jitter; whatever else goes through the host
// (moe_layer.cpp).
#include <algorithm>
#include <limits>
#include <utility>

#include "lib/core/convert.h"
#include "lib/core/error.h"
#include "lib/layer/moe_layer.h"
#include "lib/router/device_rule.h"

namespace moe {
namespace {

std::vector<std::int64_t> counts_of(const Plan& plan) {
  std::vector<std::int64_t> offset(plan.host_offset.begin(), plan.host_offset.end());
  std::vector<std::int64_t> n;
  if (offset.empty()) {
    for (const Matrix<int> there = plan.offset.to_host(); const int v : there.flat())
      offset.push_back(v);
  }
  for (std::size_t e = 0; e + 1 < offset.size(); ++e)
    n.push_back(offset[e + 1] - offset[e]);
  return n;
}
bool draws_given(const GivenNoise* g) {
  return g && !(g->noise.empty() && g->jitter.empty() && g->drop.empty() && g->table.empty() &&
                g->expert.empty());
}

// Adds a loss's gradient to what every token will get.
template <class S>
void weigh(const Balancer& b, const SumFactors& f, double scale, RoutingThere<S>& r) {
  if (!f.probability.empty())
    r.dprobability.resize(f.probability.size());
  for (std::size_t e = 0; e < f.probability.size(); ++e)
    r.dprobability[e] += scale * b.coefficient() * f.probability[e];
  r.dsquare += scale * b.coefficient() * f.square;
}

}  // namespace

template <class S>
bool MoeLayer<S>::routes_there(const Pass& pass) const {
  const auto* rule = capability<DeviceRule>(*router_);
  if (!device_ || !rule || !rule->top_k() || !products_[0].plain() || pass.host_scores ||
      draws_given(pass.given) || config_.gate_residual) {
    return false;
  }
  if (capacity_->factor() > 0 || !missing_.empty() || !light_.empty() ||
      (router_->jitter > 0 && pass.training)) {
    return false;
  }
  return std::ranges::all_of(balancers_, [](const auto& b) { return b->by_sums(); });
}

// 1. score and 2. route
template <class S>
void MoeLayer<S>::route_there(const Pass& pass, View<const S> x, MoeTape<S>& t) {
  const Index tokens = x.rows;
  const Index experts = config_.experts;
  RoutingThere<S>& r = t.there.emplace();
  r.rule = *capability<DeviceRule>(*router_)->top_k();
  r.logits = products_[0].logits(x);
  r.expert = Array<int>(backend_, tokens, r.rule.k);
  t.weight = Array<S>(backend_, tokens, r.rule.k);
  const std::vector<int> valid(pass.batch.valid.begin(), pass.batch.valid.end());
  if (!valid.empty())
    r.valid = Array<int>(backend_, View<const int>{valid.data(), 1, tokens});
  const std::span<const double> beta = router_->correction_bias();
  const Array<double> bias(
      backend_, View<const double>{beta.data(), beta.empty() ? 0 : 1, Index(beta.size())});
  Array<S> seen(backend_, tokens, experts + 2);
  device_->top_k(std::as_const(r.logits).view(), r.rule, bias.view(), std::as_const(r.valid).view(),
                 r.expert.view(), t.weight.view(), seen.view());
  r.sums = Array<S>::zeros(backend_, 1, experts + 2);
  backend_.bias_grad(std::as_const(seen).view(), r.sums.view());  // column sums
}

// The plan's counts, and what balance losses make of them.
template <class S>
void MoeLayer<S>::count_there(const Pass& pass, MoeTape<S>& t) {
  RoutingThere<S>& r = *t.there;
  t.facts.counts = t.facts.kept = counts_of(t.plan);
  for (Index n = 0; n < pass.batch.tokens(); ++n)
    t.facts.tokens += pass.batch.is_valid(n);
  t.facts.entropy = std::numeric_limits<double>::quiet_NaN();  // until it is read
  for (const auto& b : balancers_) {
    t.factors.push_back(b->across_layers() ? SumFactors{}
                                           : b->sum_factors({t.facts.counts, t.facts.tokens,
                                                             pass.other_counts, eta_}));
    weigh(*b, t.factors.back(), pass.loss_scale * b->reduction(pass.layers), r);
  }
  if (pass.layers_follow)
    return;
  MoeLayer* mine[] = {this};
  MoeTape<S>* tapes[] = {&t};
  const Matrix<S> sums = balance_there(pass, mine, tapes).to_host();
  read_sums(sums.view(), mine, tapes);
}

// Gradients of losses over all layers; the sums of all layers, for one copy.
template <class S>
Array<S> MoeLayer<S>::balance_there(const Pass& pass, std::span<MoeLayer* const> layers,
                                    std::span<MoeTape<S>* const> tapes) {
  Backend<S>& backend = layers[0]->backend_;
  const std::size_t experts = std::size_t(layers[0]->config_.experts);
  auto sums = Array<S>::zeros(backend, Index(layers.size()), Index(experts) + 2);
  std::vector<std::int64_t> counts(experts, 0);
  Index tokens = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    backend.add(std::as_const(tapes[l]->there->sums).view(), sums.view().slice(Index(l), 1), 1);
    for (std::size_t e = 0; e < experts; ++e)
      counts[e] += tapes[l]->facts.counts[e];
    tokens += tapes[l]->facts.tokens;
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    for (std::size_t b = 0; b < layers[l]->balancers_.size(); ++b) {
      const Balancer& balancer = *layers[l]->balancers_[b];
      SumFactors& f = tapes[l]->factors[b];
      if (balancer.across_layers()) {
        f = balancer.sum_factors({.chosen = counts, .tokens = tokens});
        weigh(balancer, f, pass.loss_scale, *tapes[l]->there);
      }
    }
  }
  return sums;
}

template <class S>
void MoeLayer<S>::read_sums(View<const S> on_host, std::span<MoeLayer* const> layers,
                            std::span<MoeTape<S>* const> tapes) {
  for (std::size_t l = 0; l < layers.size(); ++l) {
    MoeTape<S>& t = *tapes[l];
    const S* row = on_host.data + Index(l) * on_host.cols;
    const std::size_t experts = std::size_t(on_host.cols - 2);
    t.facts.entropy = double(row[experts + 1]);
    t.losses.clear();
    for (const SumFactors& f : t.factors) {
      double loss = f.square * double(row[experts]);
      for (std::size_t e = 0; e < f.probability.size(); ++e)
        loss += f.probability[e] * double(row[e]);
      t.losses.push_back(loss);
    }
  }
}

template <class S>
void MoeLayer<S>::backward_there(const Pass& pass, const MoeTape<S>& t, View<const S> x,
                                 View<const S> dweight, View<S> dx) {
  const RoutingThere<S>& r = *t.there;
  Array<S> dz(backend_, r.logits.rows(), r.logits.cols());
  const Array<double> dprobability(
      backend_, View<const double>{r.dprobability.data(), r.dprobability.empty() ? 0 : 1,
                                   Index(r.dprobability.size())});
  device_->top_k_backward(r.logits.view(), r.rule, r.valid.view(), r.expert.view(), dweight,
                          dprobability.view(), r.dsquare, dz.view());
  if (pass.dlogits) {
    throw Error(Exit::bug,
                "gradients of logits arrived at a layer whose logits stayed on the device");
  }
  if (pass.dscores) {
    pass.dscores->assign(1, converted<double>(dz.to_host()));
    for (double& d : (*pass.dscores)[0].flat())
      d *= r.rule.temperature;
  }
  products_[0].logits_backward(x, std::as_const(dz).view(), dx);
}

// The router fills in weights and scores for the device's choices.
template <class S>
void MoeLayer<S>::fetch_routing(MoeTape<S>& t) {
  if (!t.there)
    return;
  Matrix<double> scores = converted<double>(t.there->logits.to_host());
  for (double& s : scores.flat())
    s /= t.there->rule.temperature;
  t.input.scores.assign(1, std::move(scores));
  const GivenNoise chosen{.expert = t.there->expert.to_host()};
  const GivenNoise* before = std::exchange(t.input.given, &chosen);
  t.routing = router_->route(t.input);
  t.input.given = before;
  if (balances())
    t.probability = router_->probabilities(t.input, t.routing);
}

template <class S>
RoutingSums MoeLayer<S>::facts(const MoeTape<S>& t) const {
  if (!t.facts.counts.empty())
    return t.facts;
  RoutingSums f{count_experts(t.routing.expert, config_.experts),
                count_experts(t.routing.computed(), config_.experts)};
  const Matrix<double>& p = t.probability.empty() ? t.routing.score : t.probability;
  for (Index n = 0; n < t.routing.tokens(); ++n) {
    if (!t.input.batch.is_valid(n))
      continue;
    ++f.tokens;
    for (Index e = 0; e < p.cols(); ++e)
      f.entropy -= p(n, e) > 0 ? p(n, e) * std::log(p(n, e)) : 0;
  }
  if (p.empty())
    f.entropy = std::numeric_limits<double>::quiet_NaN();
  return f;
}

#define INSTANTIATE(S)                                                                     \
  template bool MoeLayer<S>::routes_there(const Pass&) const;                              \
  template void MoeLayer<S>::route_there(const Pass&, View<const S>, MoeTape<S>&);         \
  template void MoeLayer<S>::count_there(const Pass&, MoeTape<S>&);                        \
  template Array<S> MoeLayer<S>::balance_there(const Pass&, std::span<MoeLayer<S>* const>, \
                                               std::span<MoeTape<S>* const>);              \
  template void MoeLayer<S>::read_sums(View<const S>, std::span<MoeLayer<S>* const>,       \
                                       std::span<MoeTape<S>* const>);                      \
  template void MoeLayer<S>::backward_there(const Pass&, const MoeTape<S>&, View<const S>, \
                                            View<const S>, View<S>);                       \
  template void MoeLayer<S>::fetch_routing(MoeTape<S>&);                                   \
  template RoutingSums MoeLayer<S>::facts(const MoeTape<S>&) const;
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
