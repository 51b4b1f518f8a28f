// A router that mixes instead of choosing (Soft MoE): it fills Routing::dispatch and mix, slots()
// columns each. Its expert and weight are what a trace stores of that.
#pragma once
#include <vector>

#include "lib/core/routing.h"

namespace moe {

struct RouterInput;

class Mixing {
 public:
  virtual ~Mixing() = default;
  virtual Index slots() const = 0;  // N, expert by expert, equally many each
  // Adds to dscores what arrives by Routing::dispatch and mix, (T,N) each.
  virtual void mix_backward(const RouterInput&, const Routing&, const Matrix<double>& ddispatch,
                            const Matrix<double>& dmix,
                            std::vector<Matrix<double>>& dscores) const = 0;
};

}  // namespace moe
