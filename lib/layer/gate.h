// The gate of a MoE layer decides who computes what: scores, routing, capacity, combine weights,
// balance losses, and the gradients of all of these. There are two, and a layer takes the first
// that can route a pass: DeviceGate, whose scores and choices never leave the backend's memory, and
// HostGate, which does whatever a router of lib/router can say.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/core/routing.h"
#include "lib/layer/pass.h"

namespace moe {

template <class S>
class Gate;
template <class S>
struct GateRules;

// What the rest of the layer obeys, in the backend's memory. A router either chooses, then dispatch
// and mix are empty, or mixes, then the others are.
template <class S>
struct Choices {
  Array<int> expert;       // (T,K) whose body computes; -1 = none
  Array<S> weight;         // (T,K) combine weights
  Array<S> dispatch, mix;  // (T,N) what slots take of tokens, what outputs take of slots
  // (T) 1 = no choice was kept and the token gets x instead of 0; empty = there is no such token
  std::vector<std::uint8_t> identity;
};
template <class S>
struct ChoiceGradients {
  Array<S> weight;         // (T,K)
  Array<S> dispatch, mix;  // (T,N)
};

// Who was chosen, of one micro-batch in one layer.
struct RoutingSums {
  std::vector<std::int64_t> counts, kept;  // (E) choices, and what of them is computed
  Index tokens = 0;                        // valid
  double entropy = 0;                      // summed over them, nats; NaN without probabilities
};

// What a gate keeps for its own backward pass.
struct GateMemory {
  virtual ~GateMemory() = default;
  virtual void release() = 0;  // after the backward pass: all but what losses are read from
};

// What the host can read of a layer's routing, for traces, progress lines and golden files. Where a
// device routes it is empty until Gate::fetch() (losses: until read_sums()).
template <class S>
struct GateTape {
  explicit GateTape(const Batch& b) : input{.scores = {}, .batch = b} {}
  RouterInput input;
  Routing routing;
  Matrix<double> probability;  // (T,E), where there are balancers
  std::vector<double> losses;  // one a balancer, without coefficient
  // one a balancer, in training: what Balancer::take() is to be given
  std::vector<std::vector<double>> seen;
  Choices<S> choices;
  Gate<S>* gate = nullptr;  // the one that routed
  std::unique_ptr<GateMemory> memory;
};

template <class S>
class Gate {
 public:
  virtual ~Gate() = default;
  virtual bool on_device() const = 0;
  virtual bool can_route(const Pass&) const = 0;

  // 1. score and 2. route: fills the tape's choices and what the host knows.
  virtual void route(const Pass&, View<const S> x /*(T,H)*/, GateTape<S>&) = 0;
  // Balance losses of this layer and their gradients, once the choices have a plan.
  virtual void balance(const Pass&, const Plan&, GateTape<S>&) = 0;
  // After the last layer ran forward: losses over all layers together. What is left to read later
  // are sums (layers,E+2), in the backend's memory; empty = nothing is left.
  virtual Array<S> balance_across(const Pass&, std::span<GateTape<S>* const> layers) = 0;
  // A row of these sums, on the host: makes losses of it.
  virtual void read_sums(std::span<const S> row /*(E+2)*/, GateTape<S>&) = 0;

  // Where counts follow (Pass::counts_follow): what this micro-batch counts for each balancer over
  // a whole step, (such balancers, E); then their losses, from the counts of the other
  // micro-batches.
  virtual std::vector<std::int64_t> step_counts(const Pass&, const GateTape<S>&) const = 0;
  virtual void balance_step(const Pass&, std::span<const std::int64_t> others, GateTape<S>&) = 0;

  // Adds to dx and to the wanted gradients what arrives by the choices and by the balance losses.
  virtual void backward(const Pass&, const GateTape<S>&, View<const S> x, const ChoiceGradients<S>&,
                        View<S> dx, const GateGradients&) = 0;

  // Brings to the host what it does not know yet: input, routing and probabilities.
  virtual void fetch(GateTape<S>&) = 0;
  virtual RoutingSums sums(const GateTape<S>&) const = 0;
};

template <class S>
std::unique_ptr<Gate<S>> make_host_gate(GateRules<S>&);
// null where the backend is no OnDevice
template <class S>
std::unique_ptr<Gate<S>> make_device_gate(GateRules<S>&);

}  // namespace moe
