// One MoE layer: the gate decides who computes what (gate.h), rows go to the experts (exchange.h),
// experts compute, outputs come back; experts without a body and the shared expert add theirs
// (equations.md 0.1 and 5). Written once against Backend, forward and backward mirror each other.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/core/state.h"
#include "lib/layer/crossing.h"
#include "lib/layer/exchange.h"
#include "lib/layer/expert_attention.h"
#include "lib/layer/feed_forward.h"
#include "lib/layer/gate.h"
#include "lib/layer/zero_computation_experts.h"

namespace moe {

class Balancer;
class Capacity;
class Router;
template <class S>
class RouterProduct;

// Around experts of another width than x, (T,latent): what they read and their weighed sum.
template <class S>
struct LatentTape {
  Array<S> in, out;
};

template <class S>
struct SharedTape {
  typename FeedForward<S>::Tape body;
  Array<S> out, gate;  // (T,H), (T,1)
};

// What forward leaves: what the host can read of the routing (GateTape), and for backward what each
// step needs.
template <class S>
struct MoeTape : GateTape<S> {
  explicit MoeTape(const Batch& b) : GateTape<S>(b) {}
  // After backward: routing, losses and host matrices stay for whoever looks at the step.
  void release();

  Slots<S> slots;
  ExpertTape<S> bodies;
  CrossingTape<S> crossing;  // of experts on several ranks
  typename ZeroComputationExperts<S>::Tape zero_computation;
  SharedTape<S> shared;
  LatentTape<S> latent;
  std::unique_ptr<typename ExpertAttention<S>::Tape> attended;
};

template <class S>
class MoeLayer {
 public:
  MoeLayer(const LayerConfig&, Backend<S>&, Storage experts = Storage::own);
  MoeLayer(MoeLayer&&) noexcept;
  ~MoeLayer();

  void forward(const Pass& pass, View<const S> x /*(T,H)*/, View<S> y /*(T,H), set*/,
               MoeTape<S>& tape) {
    forward(pass, x, x, y, tape);
  }
  // The same where the router reads other rows than the experts (Gemma 4).
  void forward(const Pass&, View<const S> of_router, View<const S> x, View<S> y, MoeTape<S>&);
  // Adds to every wanted gradient; sets dx. `x` as in forward.
  void backward(const Pass& pass, const MoeTape<S>& tape, View<const S> x, View<const S> dy,
                View<S> dx, const GateGradients& more = {}) {
    backward(pass, tape, {x, dx}, x, dy, dx, more);
  }
  // What the router reads, and the gradient by it, to which its share is added.
  struct RouterRows {
    View<const S> x;
    View<S> dx;
  };
  void backward(const Pass&, const MoeTape<S>&, RouterRows, View<const S> x, View<const S> dy,
                View<S> dx, const GateGradients&);
  // After the last layer ran forward: losses over all layers together. Where a device routes it
  // returns the sums (layers,E+2) that the values of all losses are made of, still on the device:
  // read_sums() takes them when they have come.
  static Array<S> balance_across(const Pass&, std::span<MoeTape<S>* const>);
  static void read_sums(View<const S> on_host, std::span<MoeTape<S>* const>);
  int step_balancers() const;  // balancers over a whole step
  // Where counts follow (Pass::counts_follow), as Gate has them: before backward().
  std::vector<std::int64_t> step_counts(const Pass& pass, const MoeTape<S>& t) const {
    return t.gate->step_counts(pass, t);
  }
  void balance_step(const Pass& pass, std::span<const std::int64_t> others, MoeTape<S>& t) {
    t.gate->balance_step(pass, others, t);
  }
  // Brings what a device decided to the host: routing, probabilities and losses, as if the host had
  // decided.
  void fetch_routing(MoeTape<S>&) const;
  RoutingSums routing_sums(const MoeTape<S>&) const;
  // Every expert on every row: (E*T,H), expert by expert. For redundancy metrics.
  Matrix<S> outputs_of_all(View<const S> x);

  // Of a layer whose experts are parts of attention (LayerConfig::attends), before anything else.
  void attend_with(std::unique_ptr<ExpertAttention<S>>);
  const ExpertAttention<S>* attention() const {  // null = experts are feed-forwards
    return attention_.get();
  }
  // Shares the experts out to the ranks of a group: from here on those of this rank lie here, and
  // rows cross (crossing.h). `number`: of the layer among the MoE layers.
  void share_out(Comm& group, int number, const CrossingWay& = {});
  // Throws Error(usage) where its experts cannot be shared out, or its rows not be sent so.
  void refuse_sharing(Send) const;
  // Weights of the experts that lie here are there while the layer computes with them.
  void borrow(ExpertLoan*);
  Crossing<S>* crossing() {  // null = all experts are here
    return crossing_.get();
  }
  // What a rank does for the others when it has no batch of its own: its experts compute theirs.
  void serve(bool training, CrossingTape<S>&);
  void serve_backward(const CrossingTape<S>&);

  // From now on what these experts would compute is missing: their choices are dropped, the other
  // weights of a token kept, or scaled so that their sum stays. For looking on: a training pass
  // throws Error(bug). None = all experts again.
  void knock_out(std::vector<int> experts, bool renormalise);

  // names "router.weight", "experts.gate", "shared.up", "shared_gate.weight", "latent.in",
  // "output_bias", "attention.k", ...
  void collect(std::vector<Parameter<S>*>& all);
  const LayerConfig& config() const;  // specs resolved
  Router& router();
  const Router& router() const;
  const Capacity& capacity() const;
  const std::vector<std::unique_ptr<Balancer>>& balancers() const;
  std::vector<RouterProduct<S>>& products();  // in the order of Router::projections()
  ExpertParameters<S>& expert_parameters() {
    return expert_parameters_;
  }
  // zeros where an expert is narrower than the widest, or has no body: after drawing initial
  // weights
  void trim();
  // Balancers without gradient, once per optimiser step: selection counts and valid tokens of the
  // global batch (0 = not known: the balancer `l1` refuses).
  void stepped(std::span<const std::int64_t> global_counts, std::int64_t global_tokens = 0);
  // What balancer number b saw of one micro-batch (GateTape::seen), before stepped(), in order of
  // micro-batches.
  void take_seen(std::size_t b, std::span<const double>);
  // "router.correction_bias", "balance.l1.coef": what a checkpoint holds besides parameters
  std::vector<State> state();

 private:
  // Sets the rows that experts of attention put out.
  void attend(const Pass&, View<const S> x, MoeTape<S>&);
  Array<S> heads_backward(const MoeTape<S>&, View<const S> x, View<const S> dout, View<S> dx);
  ChoiceGradients<S> attend_backward(const MoeTape<S>&, View<const S> x, View<const S> dy,
                                     View<S> dx);
  void compute(const Pass&, View<const S> x, View<S> y, MoeTape<S>&);
  ChoiceGradients<S> compute_backward(const MoeTape<S>&, View<const S> x, View<const S> dy,
                                      View<S> dx);
  void run_experts(const Pass&, View<const S> x, View<S> y, MoeTape<S>&);
  ChoiceGradients<S> run_experts_backward(const MoeTape<S>&, View<const S> x, View<const S> dy,
                                          View<S> dx);
  Array<S> product(View<const S> x, const Parameter<S>& w) const {
    Array<S> y(backend_, x.rows, w.value().rows);
    backend_.linear(x, w.weight(), y.view(), 0);
    return y;
  }
  bool weighs_outputs() const;  // by choice, and not what experts read
  void share(const Pass&, View<const S> x, View<S> y, SharedTape<S>&);
  void share_backward(const SharedTape<S>&, View<const S> x, View<const S> dy, View<S> dx);

  Backend<S>& backend_;
  std::unique_ptr<GateRules<S>> rules_;
  std::vector<std::unique_ptr<Gate<S>>> gates_;  // the first that can route a pass does
  std::unique_ptr<Exchange<S>> exchange_;
  Parameter<S> shared_gate_, latent_in_, latent_out_, output_bias_;
  ExpertParameters<S> expert_parameters_;
  std::unique_ptr<ExpertAttention<S>> attention_;
  std::unique_ptr<Crossing<S>> crossing_;
  ExpertLoan* loan_ = nullptr;
  ZeroComputationExperts<S> zero_computation_;
  FeedForward<S> shared_;
};

}  // namespace moe
