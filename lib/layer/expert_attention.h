// Experts of attention (mixture of attention heads, 2210.05144; JetMoE, 2404.07413): an expert is
// the query matrix and the output matrix of some heads, and all share keys and values. A MoE layer
// multiplies rows of slots by the one and by the other as it does for any body without a gate; what
// happens between the two, where a row sees rows before it, stands behind this interface.
#pragma once
#include <memory>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/layer/parameter.h"
#include "lib/layer/pass.h"

namespace moe {

template <class S>
class ExpertAttention {
 public:
  struct Tape {
    virtual ~Tape() = default;
  };
  virtual ~ExpertAttention() = default;
  // `q`, (S,I): what the chosen experts' query matrices make of the rows x, (T,H), not turned yet.
  virtual std::unique_ptr<Tape> forward(const Pass&, View<const S> x, const Plan&,
                                        View<const S> q) = 0;
  // (S,I): what the experts' output matrices read.
  virtual Array<S> heads(const Tape&, const Plan&) const = 0;
  // From the gradient by heads() to that by q, which it returns; adds to the gradients of what is
  // trained and sets dx, (T,H), to what arrives by keys and values.
  virtual Array<S> backward(const Tape&, const Plan&, View<const S> x, View<const S> dheads,
                            View<S> dx) = 0;
  // of sequences that have not begun
  virtual std::unique_ptr<MixerState> new_state() const = 0;
  virtual void collect(std::vector<Parameter<S>*>& all) = 0;  // "attention.k", "attention.v"
};

}  // namespace moe
