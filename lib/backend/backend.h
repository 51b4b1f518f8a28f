// The machine that computes: memory and operations on it, each with its backward beside it, in
// groups (lib/backend/ops). S is the scalar of activations, gradients and master weights: float, or
// double on `reference`, which runs every operation by its definition; every other backend is held
// to the definitions by the cases of lib/check. Letters: T tokens, H hidden, I width, E experts,
// K choices, S slots.
#pragma once
#include <memory>
#include <string>

#include "lib/backend/ops/attention.h"
#include "lib/backend/ops/biased_attention.h"
#include "lib/backend/ops/experts.h"
#include "lib/backend/ops/optimiser.h"
#include "lib/backend/ops/products.h"
#include "lib/backend/ops/routing.h"
#include "lib/backend/ops/rows.h"
#include "lib/backend/ops/sequence.h"
#include "lib/backend/ops/tokens.h"
#include "lib/core/registry.h"
#include "lib/core/spec.h"

namespace moe {

template <class S>
class Backend : public GroupedOps<S>,
                public RoutingOps<S>,
                public RowOps<S>,
                public AttentionOps<S>,
                public BiasedAttentionOps<S>,
                public SequenceOps<S>,
                public TokenOps<S>,
                public OptimiserOps<S> {
 public:
  virtual std::string name() const = 0;
  // relative error of a product's operands, beyond that of S: 2^-9 in bf16
  virtual double rounding() const {
    return 0;
  }
  // weights stored as this type are multiplied without a converted copy
  virtual DType operand_type() const {
    return dtype_of<S>;
  }
  // what a user who asked for this backend should know: that it is not what was asked for
  virtual std::string notice() const {
    return {};
  }

  // Composed of the operations above; a fast backend overrides them.
  // The bodies of all slots: xs (S,H) -> ys (S,H), rows grouped as the plan says. Sets the tape;
  // hidden units are not kept.
  virtual void experts(const ExpertWeights<S>&, View<const S> xs, const Plan&, ExpertTape<S>&,
                       View<S> ys);
  // Backward of experts() followed by combine() with `weight` (T,K); an empty weight counts as 1.
  // dys (S,H) holds for each slot the gradient of its token's output, not yet weighted. Sets dxs,
  // and dweight unless it is empty. Hidden units are computed again from the tape; with them
  // dweight = h . (dy W_down), so that ys need not be kept.
  virtual void experts_backward(const ExpertWeights<S>&, const ExpertGrads<S>&, View<const S> xs,
                                const Plan&, const ExpertTape<S>&, View<const S> dys,
                                View<const S> weight, View<S> dxs, View<S> dweight);

 protected:
  // The down projection's bias b: dy . b of each slot, (S,1), its share of dweight; empty where
  // there is no bias.
  Array<S> bias_share(View<const S> bias /*(E,H)*/, View<const S> dys, const Plan&);
  // db += weighted sums of dys, unless db is empty
  void weighted_bias_grad(View<const S> dys, const Plan&, View<const S> weight,
                          View<S> db /*(E,H)*/);
};

// Backends are named by specs: "reference", "cpu:threads=2", "check:of={cpu}". They compute in
// float; the definition also in double.
using MakeBackend = std::unique_ptr<Backend<float>>(Spec&);
const Registry<MakeBackend>& backends();
// refuses unknown names and options
std::unique_ptr<Backend<float>> make_backend(const std::string& spec);
// GPUs that the driver shows; 0 where there is none, or no CUDA backend in this build.
int cuda_devices();
template <class S>
std::unique_ptr<Backend<S>> make_reference();
// Runs `of` beside the definition; throws Error(failed) at the first operation whose results
// differ.
std::unique_ptr<Backend<float>> make_check(std::unique_ptr<Backend<float>> of);

extern template class Backend<float>;
extern template class Backend<double>;

}  // namespace moe
