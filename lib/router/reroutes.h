// A router whose tokens rank all experts, so that a slot without room can go to another one (the
// capacity rule `reroute`) and a balancer can see how far an expert is from being chosen.
#pragma once
#include <span>

#include "lib/core/routing.h"

namespace moe {

class Reroutes {
 public:
  virtual ~Reroutes() = default;
  // What ranks the experts of token t; -inf = never.
  virtual void rank(const Routing&, Index t, std::span<double> key /*(E), set*/) const = 0;
  virtual bool ranks_all() const = 0;  // rank() gives every expert a finite key
  // The weight that an expert would have, a s / D with the D of the original choice. The gradient
  // of such weights reaches Router::backward in dweight (T,2K), see Capacity::backward.
  virtual double weight_of(const Routing&, Index t, int expert) const = 0;
};

}  // namespace moe
