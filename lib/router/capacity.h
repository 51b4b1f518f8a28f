// Capacity: how many slots an expert may take, who loses when it is full, what happens to the
// weights (equations.md section 3).
#pragma once
#include <memory>
#include <vector>

#include "lib/core/registry.h"
#include "lib/core/routing.h"

namespace moe {

class Router;
class Spec;
struct RouterInput;

class Capacity {
 public:
  virtual ~Capacity() = default;
  // Cuts the routing of the router: fills kept and combine, and moved where slots went to another
  // expert.
  virtual void apply(Routing&, const RouterInput&, const Router&) const = 0;
  virtual bool reroutes() const {
    return false;
  }  // needs a router that is Reroutes
  // Gradient of the weights (T,K) from that of the combine weights (T,K); with moved slots (T,2K):
  // beside it that of the moved weights.
  virtual Matrix<double> backward(const Routing&, const Matrix<double>& dcombine) const = 0;
  // a token without any kept slot gets x instead of 0
  virtual bool identity_output() const {
    return false;
  }
  // room in proportion to these; without a call the same for all
  virtual void share_out(std::vector<double> /*share (E)*/) {}
  // (E); empty = no limit
  virtual std::vector<Index> room_of(Index /*valid tokens*/, int /*k*/, int /*experts*/) const {
    return {};
  }
  virtual double factor() const {
    return 0;
  }  // of the tokens' even share; 0 = room is no multiple of it
  virtual bool limits() const {
    return false;
  }  // whether an expert's room is limited at all
  virtual Index places() const {
    return 0;
  }  // that an expert has whatever the tokens, in each sequence or batch; 0 = no such number
  virtual bool by_sequence() const {
    return false;
  }  // places() are those of a sequence
  virtual bool needs_scores() const {
    return false;
  }  // a router with probabilities
};

using MakeCapacity = std::unique_ptr<Capacity>(Spec&);
const Registry<MakeCapacity>& capacities();
std::unique_ptr<Capacity> make_capacity(const std::string& spec);
std::unique_ptr<Capacity> make_capacity(const std::string& spec, std::string& resolved);

// C = max(least, ceil(T k factor / E - 1e-9)) of equations.md 3.1; T valid tokens.
Index capacity_of(Index valid_tokens, int k, int experts, double factor, Index least);

}  // namespace moe
