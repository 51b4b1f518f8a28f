// By which rules a layer's gates decide: router, capacity, balancers, the products that the router
// wants, experts that are knocked out. Made once from a LayerConfig, which is refused here where
// its parts do not go together.
#pragma once
#include <memory>
#include <vector>

#include "lib/balance/balancer.h"
#include "lib/layer/layer_config.h"
#include "lib/layer/router_product.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"

namespace moe {

template <class S>
struct GateRules {
  GateRules(const LayerConfig&, Backend<S>&);

  // There are scores of choices and somebody weighs them.
  bool balances() const;
  // Balancers over a whole step of several micro-batches.
  int step_balancers() const;

  LayerConfig config;  // specs resolved
  Backend<S>& backend;
  std::unique_ptr<Router> router;
  std::unique_ptr<Capacity> capacity;
  std::vector<std::unique_ptr<Balancer>> balancers;
  std::vector<RouterProduct<S>> products;  // in the order of Router::projections()
  Parameter<S> expert_scale;               // (E) factors of weights; empty = 1
  std::vector<double> eta;                 // (E) factors of the balance loss; empty = 1
  std::vector<int> missing;                // experts whose choices are dropped
  bool renormalise = false;                // the other weights of a token keep its sum

 private:
  void share_among_kinds();
};

}  // namespace moe
