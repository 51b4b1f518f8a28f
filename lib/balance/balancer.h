// What keeps experts evenly used: losses whose gradient reaches the router, and updates without gradient (equations.md 6, 7).
// Several balancers combine: their losses add up.
#pragma once
#include <memory>

#include "lib/router/router.h"

namespace moe {

struct BalanceInput {
  const RouterInput& router;          // scores, batch
  const Routing& routing;
  const Matrix<double>& probability;  // (T,E) rows summing to 1; empty for routers without scores
  int experts;
  std::span<const std::int64_t> other_counts;  // (E) counts of the other micro-batches of the step, or empty
  Index tokens() const { return routing.tokens(); }
  Index valid_tokens() const;
};

struct BalanceGrad {      // added to, both (T,E)
  Matrix<double>& dprob;    // by probabilities
  Matrix<double>& dlogits;  // by logits z directly
};

class Balancer {
 public:
  explicit Balancer(std::string name) : name_(std::move(name)) {}
  virtual ~Balancer() = default;
  const std::string& name() const { return name_; }

  // Value without the coefficient; adds coef * scale * gradient.
  virtual double loss(const BalanceInput&, double scale, const BalanceGrad&) const = 0;
  virtual double coefficient() const = 0;  // 0 = this balancer has no loss
  virtual bool needs_scores() const { return true; }
  // Once per optimiser step, with the selection counts of the global batch (E).
  virtual void stepped(Router&, std::span<const std::int64_t>) const {}

 private:
  std::string name_;
};

using MakeBalancer = std::unique_ptr<Balancer>(Spec&);
const Registry<MakeBalancer>& balancers();
std::unique_ptr<Balancer> make_balancer(const std::string& spec);  // refuses unknown names and options
std::unique_ptr<Balancer> make_balancer(const std::string& spec, std::string& resolved);

// n_i of equations.md: how many slots of valid tokens hold expert i.
std::vector<std::int64_t> count_experts(const Matrix<int>& ids, int experts);

}  // namespace moe
