#include "lib/layer/gate_rules.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/router/excludes_experts.h"
#include "lib/router/mixing.h"
#include "lib/router/reroutes.h"

namespace moe {
namespace {

void refuse(bool when, const std::string& sentence, const std::string& hint) {
  if (when)
    throw Error(Exit::usage, sentence).hint(hint);
}

void check_balancers(const std::vector<std::unique_ptr<Balancer>>& balancers, Router& router,
                     const std::string& name, bool scores, bool mixes) {
  const Balancer* moves = nullptr;
  for (const auto& b : balancers) {
    refuse(b->needs_scores() && !scores,
           concat("the balancer '", b->name(), "' needs a router with scores, and ", name,
                  " has none"),
           "--balance none");
    refuse(b->needs_scores() && mixes,
           concat("the balancer '", b->name(), "' has no effect on ", name,
                  ", which makes no discrete choices"),
           "--balance none");
    refuse(
        b->moves_bias() && router.correction_bias().empty(),
        concat("the balancer '", b->name(), "' moves a correction bias, and ", name, " has none"),
        "--router sigmoid:k=2,bias=1");
    b->check(router);
    if (!b->moves_bias())
      continue;
    refuse(moves != nullptr,
           concat("the balancers '", moves ? moves->name() : "", "' and '", b->name(),
                  "' both move the one correction bias"),
           "one of them");
    moves = b.get();
  }
}

void check_capacity(const LayerConfig& c, const Capacity& capacity, const Router& router) {
  refuse(router.facts().limits_load && capacity.limits(),
         concat(c.router, " bounds the load of experts itself, so the capacity rule ", c.capacity,
                " does not apply"),
         "--capacity none");
  refuse(
      capacity.needs_scores() && router.facts().score == ScoreFunction::other,
      concat(c.capacity, " ranks tokens by their largest probability, and ", c.router, " has none"),
      "order=position");
  refuse(capacity.reroutes() && !capability<Reroutes>(router),
         concat(c.capacity, " needs a router that ranks all experts for each token; ", c.router,
                " does not"),
         "--router softmax:k=2 or sigmoid:k=2");
}

void check_scores(const LayerConfig& c, const Router& router, bool scores, bool mixes) {
  refuse(c.gate_residual && (!scores || mixes),
         concat("gate_residual=1 adds to the logits of experts, and ", c.router, " has none"),
         "gate_residual=0");
  refuse(c.router_bias && scores && router.projections()[0].cosine,
         concat("router_bias=1 shifts a product, and the scores of ", c.router, " are cosines"),
         "router_bias=0");
  refuse(
      mixes && !c.all_ffn(),
      concat(c.router, " gives slots to every expert, including expert_types that compute nothing"),
      "expert_types=ffn");
  refuse(c.expert_scale && (mixes || !scores || c.capacity != "none"),
         concat("expert_scale=1 multiplies the weights of chosen experts as they are, and with ",
                c.router, " and the capacity rule ", c.capacity, " there are none"),
         "expert_scale=0, or a router with scores and capacity=none");
  refuse(mixes && c.weight_on_input,
         concat("weight_on_input=1 multiplies the input of a chosen expert, and ", c.router,
                " makes no discrete choices"),
         "weight_on_input=0");
}

}  // namespace

template <class S>
GateRules<S>::GateRules(const LayerConfig& c, Backend<S>& b) : config(c), backend(b) {
  router = make_router(c.router, c.experts, config.router);
  capacity = make_capacity(c.capacity, config.capacity);
  for (std::string& spec : config.balance)
    balancers.push_back(make_balancer(std::string(spec), spec));
  check_experts(c);
  const bool scores = !router->projections().empty();
  const bool mixes = capability<Mixing>(*router) != nullptr;
  // in the words of the resolved specs
  check_balancers(balancers, *router, config.router, scores, mixes);
  check_capacity(config, *capacity, *router);
  check_scores(config, *router, scores, mixes);
  if (c.expert_scale) {
    const Matrix<S> ones(1, c.experts, S(1));
    expert_scale = Parameter<S>(b, "router.expert_scale", {c.experts}, ParameterKind::vector);
    expert_scale.set(ones.view());
  }
  if (!c.widths.empty())
    config.width = std::ranges::max(c.widths);
  if (!c.all_ffn())
    share_among_kinds();
  for (const Projection& p : router->projections()) {
    products.emplace_back(backend, p, c.hidden, c.router_bias && products.empty(),
                          c.gate_residual && products.empty());
  }
}

// Room and balance of experts with a body against those without one (MoE++, 2410.07348).
template <class S>
void GateRules<S>::share_among_kinds() {
  const LayerConfig& c = config;
  std::vector<double> room(std::size_t(c.experts), 1.0);
  std::vector<std::uint8_t> zero(std::size_t(c.experts), 0);
  eta = room;
  for (int e = 0; e < c.experts; ++e) {
    (c.type_of(e) == ExpertKind::ffn ? room : eta)[e] = c.zc_tau;
    zero[e] = c.type_of(e) == ExpertKind::zero;
  }
  if (c.zc_capacity)
    capacity->share_out(room);
  if (c.zc_exclude_zero)
    exclude_experts(*router, zero);
}

template <class S>
bool GateRules<S>::balances() const {
  return !balancers.empty() && !products.empty() && !capability<Mixing>(*router);
}

template <class S>
int GateRules<S>::step_balancers() const {
  const auto whole = [](const auto& b) {
    return b->counts_whole_step();
  };
  return balances() ? int(std::ranges::count_if(balancers, whole)) : 0;
}

template struct GateRules<float>;
template struct GateRules<double>;

}  // namespace moe
