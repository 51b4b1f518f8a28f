// One MoE layer: scores, routing, capacity, dispatch, experts, combine, shared expert, balance
// losses — and the same backwards (equations.md 0.1 and 5). Written once against Backend; in
// moe_layer.cpp forward and backward mirror each other.
#pragma once
#include <memory>
#include <optional>
#include <span>

#include "lib/backend/on_device.h"
#include "lib/balance/balancer.h"
#include "lib/layer/feed_forward.h"
#include "lib/layer/light_experts.h"
#include "lib/layer/router_product.h"
#include "lib/router/capacity.h"
#include "lib/router/mixing.h"
#include "lib/router/router.h"

namespace moe {

struct Pass {  // what one call is about
  const Batch& batch;
  bool training = false;
  Rng* rng = nullptr;
  double loss_scale = 1;                       // of the balance losses' gradients (1/micro-batches)
  std::span<const std::int64_t> other_counts;  // (E), for scope=global
  int layers = 1;                              // MoE layers whose balance losses add up
  bool layers_follow = false;  // losses over all layers are left to balance_across()
  // losses that a device knows stay there until Decoder::read_losses()
  bool losses_later = false;
  // scores of this pass are wanted on the host as it goes (gate residual)
  bool host_scores = false;
  const GivenNoise* given = nullptr;
  // (T,E) logits z of the MoE layer before, where gate_residual is set
  const Matrix<double>* previous = nullptr;
  Matrix<double>* dprevious = nullptr;  // backward adds their gradient
  // (T,E) gradient of this layer's z that came from the layer after it; null = none
  const Matrix<double>* dlogits = nullptr;
  // backward leaves the gradient of every score (z after temperature) here
  std::vector<Matrix<double>>* dscores = nullptr;
};

// Routing that a device decided and kept to itself (device_routing.cpp); empty where the host
// routes.
template <class S>
struct RoutingThere {
  TopK rule;
  Array<S> logits;           // (T,E) before temperature
  Array<int> expert, valid;  // (T,K); (1,T) or empty: all
  Array<S> sums;             // (1,E+2) over tokens: probabilities, lse^2, entropy
  // (E) gradient of the balance losses by every token's probability; empty = none
  std::vector<double> dprobability;
  double dsquare = 0;  // the same by lse^2
};
// Who was chosen, of one micro-batch in one layer.
struct RoutingSums {
  std::vector<std::int64_t> counts, kept;  // (E) choices, and what of them is computed
  Index tokens = 0;                        // valid
  double entropy = 0;                      // summed over them, nats; NaN without probabilities
};

// What forward leaves: for backward, for the trace, for the progress line.
template <class S>
struct MoeTape {
  RouterInput input;
  Routing routing;  // where a device routes, empty until fetch_routing()
  std::optional<RoutingThere<S>> there;
  // of `there`, and of what was `there`; else see MoeLayer::facts()
  RoutingSums facts;
  // of `there`, one a balancer: what makes losses of the sums
  std::vector<SumFactors> factors;
  Matrix<double> probability;                      // (T,E)
  std::vector<double> losses;                      // one a balancer, without coefficient
  Matrix<double> dprob, dlogits, dnoise, dweight;  // of the balance losses
  Matrix<double> jitter;                           // (T,H) factors; empty = none
  std::vector<std::uint8_t> untouched;             // (T) 1 = no slot kept and output=identity
  Plan plan;
  Array<S> weight;  // combine weights (T,K)
  // (S,H) rows by slot and what experts made of them: of a mixing router; out of others where not
  // training
  Array<S> sorted, out;
  ExpertTape<S> bodies;
  std::vector<typename RouterProduct<S>::Tape> products;
  typename LightExperts<S>::Tape light;
  Array<S> dispatch, mix;  // (T,N) of a mixing router
  typename FeedForward<S>::Tape shared;
  Array<S> shared_out, shared_gate;  // (T,H), (T,1)

  explicit MoeTape(const Batch& b) : input{.scores = {}, .batch = b} {}
};

template <class S>
class MoeLayer {
 public:
  MoeLayer(const LayerConfig&, Backend<S>&, Storage experts = Storage::own);

  void forward(const Pass&, View<const S> x /*(T,H)*/, View<S> y /*(T,H), set*/, MoeTape<S>&);
  // Adds to every wanted gradient; sets dx. `x` as in forward.
  void backward(const Pass&, const MoeTape<S>&, View<const S> x, View<const S> dy, View<S> dx);
  // After the last layer ran forward: losses over all layers together. Where a device routes it
  // returns the sums (layers,E+2) that the values of all losses are made of, still on the device:
  // read_sums() takes them when they have come.
  static Array<S> balance_across(const Pass&, std::span<MoeLayer* const>,
                                 std::span<MoeTape<S>* const>);
  static void read_sums(View<const S> on_host, std::span<MoeLayer* const>,
                        std::span<MoeTape<S>* const>);
  // Brings what a device decided to the host: tape.routing, probabilities and losses, as if the
  // host had decided.
  void fetch_routing(MoeTape<S>&);
  RoutingSums facts(const MoeTape<S>&) const;
  // Every expert on every row: (E*T,H), expert by expert. For redundancy metrics.
  Matrix<S> outputs_of_all(View<const S> x);

  // From now on what these experts would compute is missing: their choices are dropped, the other
  // weights of a token kept, or scaled so that their sum stays. For looking on: a training pass
  // throws Error(bug). None = all experts again.
  void knock_out(std::vector<int> experts, bool renormalise);

  // names "router.weight", "experts.gate", "shared.up", "shared_gate.weight", ...
  void collect(std::vector<Parameter<S>*>& all);
  const LayerConfig& config() const {
    return config_;
  }  // specs resolved
  Router& router() {
    return *router_;
  }
  const Router& router() const {
    return *router_;
  }
  const Capacity& capacity() const {
    return *capacity_;
  }
  const std::vector<std::unique_ptr<Balancer>>& balancers() const {
    return balancers_;
  }
  Bodies<S>& bodies() {
    return bodies_;
  }
  // in the order of Router::projections()
  std::vector<RouterProduct<S>>& products() {
    return products_;
  }
  // zeros where an expert is narrower than the widest, or has no body: after drawing initial
  // weights
  void trim();
  // Balancers without gradient, once per optimiser step: selection counts and valid tokens of the
  // global batch (0 = not known: the balancer `l1` refuses).
  void stepped(std::span<const std::int64_t> global_counts, std::int64_t global_tokens = 0);
  // "router.correction_bias", "balance.l1.coef": what a checkpoint holds besides parameters
  std::vector<State> state();

 private:
  void score(const Pass&, View<const S> x, MoeTape<S>&);
  void route(const Pass&, MoeTape<S>&);
  void drop_missing(Routing&) const;
  void balance(const Pass&, MoeTape<S>&);
  BalanceInput balance_input(const Pass&, const MoeTape<S>&) const;
  bool balances() const {
    return !balancers_.empty() && !products_.empty() && !capability<Mixing>(*router_);
  }
  Array<S> rows_of_slots(View<const S> x, const MoeTape<S>&);  // (S,H), what experts read
  void compute(const Pass&, View<const S> x, View<S> y, MoeTape<S>&);
  // gradient of the weights (T,K)
  Array<S> compute_backward(const MoeTape<S>&, View<const S> x, View<const S> dy, View<S> dx);
  bool routes_there(const Pass&) const;
  void route_there(const Pass&, View<const S> x, MoeTape<S>&);
  void count_there(const Pass&, MoeTape<S>&);
  static Array<S> balance_there(const Pass&, std::span<MoeLayer* const>,
                                std::span<MoeTape<S>* const>);
  void backward_there(const Pass&, const MoeTape<S>&, View<const S> x, View<const S> dweight,
                      View<S> dx);
  void mix(View<const S> x, View<S> y, MoeTape<S>&);
  void mix_backward(const MoeTape<S>&, View<const S> x, View<const S> dy, View<S> dx,
                    std::vector<Matrix<double>>& dscores);
  void share(const Pass&, View<const S> x, View<S> y, MoeTape<S>&);
  void share_backward(const MoeTape<S>&, View<const S> x, View<const S> dy, View<S> dx);
  void score_backward(const Pass&, const MoeTape<S>&, View<const S> x,
                      std::vector<Matrix<double>> dscores, View<S> dx);
  void check();

  LayerConfig config_;
  Backend<S>& backend_;
  OnDevice<S>* device_;  // null: routing is the host's
  std::unique_ptr<Router> router_;
  std::unique_ptr<Capacity> capacity_;
  std::vector<std::unique_ptr<Balancer>> balancers_;
  std::vector<RouterProduct<S>> products_;
  std::vector<double> eta_;  // (E) factors of the balance loss; empty = 1
  Parameter<S> shared_gate_;
  Bodies<S> bodies_;
  LightExperts<S> light_;
  FeedForward<S> shared_;
  std::vector<int> missing_;
  bool renormalise_ = false;
};

}  // namespace moe
