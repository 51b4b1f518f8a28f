// What keeps experts evenly used: losses whose gradient reaches the router, and updates without
// gradient (equations.md 6, 7). Several balancers combine: their losses add up.
#pragma once
#include <memory>

#include "lib/core/batch.h"
#include "lib/core/registry.h"
#include "lib/core/routing.h"
#include "lib/core/state.h"

namespace moe {

class Router;
class Spec;
struct RouterInput;

struct BalanceInput {
  const RouterInput& router;  // scores, batch
  const Routing& routing;
  const Matrix<double>& probability;  // (T,E) rows summing to 1; empty for routers without scores
  int experts;
  // (E) counts of the other micro-batches of the step, or empty
  std::span<const std::int64_t> other_counts;
  // (E) factor of each expert in the loss `switch`; empty = 1
  std::span<const double> eta;
  Index tokens() const {
    return routing.tokens();
  }
  const Batch& batch() const;
  Index valid_tokens() const;
};

struct BalanceGrad {        // added to
  Matrix<double>& dprob;    // (T,E) by probabilities
  Matrix<double>& dlogits;  // (T,E) by logits z directly
  Matrix<double>& dnoise;   // (T,E) by scores[1] of a router that learns its noise
  Matrix<double>& dweight;  // (T,K) by the weights of the choices, before drops
};

// A loss that is linear in sums over tokens, probability . (sum_t p_t) + square (sum_t lse_t^2),
// with factors that no gradient flows through: then it can do without the scores of each token,
// which stay where they were made.
struct SumFactors {
  std::vector<double> probability;  // (E); empty = 0
  double square = 0;
};
struct SelectionCounts {
  std::span<const std::int64_t> chosen;        // (E) choices of valid tokens
  Index tokens = 0;                            // that are valid
  std::span<const std::int64_t> other_counts;  // as in BalanceInput
  std::span<const double> eta;
};

class Balancer {
 public:
  explicit Balancer(std::string name) : name_(std::move(name)) {}
  virtual ~Balancer() = default;
  const std::string& name() const {
    return name_;
  }

  // Value without the coefficient; adds coef * scale * gradient.
  virtual double loss(const BalanceInput&, double scale, const BalanceGrad&) const = 0;
  virtual double coefficient() const = 0;  // 0 = this balancer has no loss
  // What a layer's value counts for in the loss of a model with so many MoE layers.
  virtual double reduction(int /*layers*/) const {
    return 1;
  }
  // A loss over the statistics of all MoE layers together. Gradients are needed in the backward
  // pass only, so every layer runs forward first and leaves its statistics; then this adds each
  // layer's gradient and gives each layer's share of the value (L).
  virtual bool across_layers() const {
    return false;
  }
  virtual std::vector<double> losses(std::span<const BalanceInput>, double /*scale*/,
                                     std::span<const BalanceGrad>) const {
    return {};
  }
  // A loss of the router's matrix W (E,H) in place of one of what it decided: value without the
  // coefficient, adds coef * scale * gradient to dw.
  virtual bool of_matrix() const {
    return false;
  }
  virtual double matrix_loss(const Matrix<double>& /*w*/, double /*scale*/,
                             Matrix<double>& /*dw*/) const {
    return 0;
  }
  // sum_factors() says all of loss(), or losses() with counts of all layers added up
  virtual bool by_sums() const {
    return false;
  }
  virtual SumFactors sum_factors(const SelectionCounts&) const {
    return {};
  }
  // What a balancer without gradient reads from a micro-batch of training, besides the counts that
  // stepped() gets: numbers that take() is given, those of all micro-batches of a step in their
  // order, wherever they were computed.
  virtual std::vector<double> seen(Router&, const BalanceInput&) const {
    return {};
  }
  virtual void take(std::span<const double>) {}
  virtual bool needs_scores() const {
    return true;
  }
  // whether the loss is over a whole step, and so reads BalanceInput::other_counts
  virtual bool counts_whole_step() const {
    return false;
  }
  // and what it counts of one micro-batch, (E), for the other_counts of the others
  virtual std::vector<std::int64_t> counted(const BalanceInput&) const {
    return {};
  }
  // moves Router::correction_bias(), which the router then must have; one balancer of a layer may
  virtual bool moves_bias() const {
    return false;
  }
  // throws Error(usage) where this cannot go with the router
  virtual void check(const Router&) const {}
  virtual std::vector<State> state() {
    return {};
  }  // what a checkpoint must hold
  // Once per optimiser step, with the selection counts (E) and the number of valid tokens of the
  // global batch.
  virtual void stepped(Router&, std::span<const std::int64_t>, std::int64_t) {}

 private:
  std::string name_;
};

using MakeBalancer = std::unique_ptr<Balancer>(Spec&);
const Registry<MakeBalancer>& balancers();
// refuses unknown names and options
std::unique_ptr<Balancer> make_balancer(const std::string& spec);
std::unique_ptr<Balancer> make_balancer(const std::string& spec, std::string& resolved);

// Load_e of equations.md 6.4: how many tokens would choose e under fresh noise, from the routing of
// a router that learns its noise.
std::vector<double> smooth_load(const Routing&, const Batch&);

// n_i of equations.md: how many slots of valid tokens hold expert i.
std::vector<std::int64_t> count_experts(const Matrix<int>& ids, int experts);

}  // namespace moe
