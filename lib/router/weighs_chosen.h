// Routers whose combine weights can depend on the logits of the chosen experts alone. Their
// gradient is then k numbers a token instead of E, and of many experts few rows of the router's
// matrix have to do with a token.
#pragma once
#include "lib/core/routing.h"
#include "lib/router/input.h"

namespace moe {

class WeighsChosen {
 public:
  virtual ~WeighsChosen() = default;
  // Whether no other logit counts, with the options of this router.
  virtual bool by_chosen_alone() const = 0;
  // Then: sets dz (T,K), the gradient by the logit of each choice (0 where there is none), from
  // that of the weights, dweight (T,K). Router::backward() without dprob gives the same, and else
  // zeros but for rounding.
  virtual void chosen_backward(const RouterInput&, const Routing&, const Matrix<double>& dweight,
                               Matrix<double>& dz) const = 0;
};

}  // namespace moe
