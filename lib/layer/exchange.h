// Rows of tokens become rows of slots and come back: the one place of a MoE layer where rows move.
// Before dispatch() everything is by token, from there to combine() by expert. With experts on
// several ranks this is where rows cross: dispatch() sends x to the experts' ranks and combine()
// brings their outputs back, (S,H) each; their backwards send gradients of the same shape the same
// two ways. Choices say where to, Plan says which row is whose.
#pragma once
#include <memory>

#include "lib/layer/gate.h"

namespace moe {

template <class S>
struct Slots {
  Plan plan;
  Array<S> rows;  // (S,H) what the experts read
  Array<S> out;   // (S,H) what they make of it
};

template <class S>
class Exchange {
 public:
  virtual ~Exchange() = default;
  // 3. Sets the plan and the rows.
  virtual void dispatch(View<const S> x /*(T,H)*/, const Choices<S>&, Slots<S>&) const = 0;
  // 5. y (T,H), set, of slots.out.
  virtual void combine(const Choices<S>&, const Slots<S>&, View<S> y) const = 0;

  // Drops what backward does without.
  virtual void settle(bool training, Slots<S>&) const = 0;

  // The rows of slots once more, for the backward pass; empty where slots.rows were kept.
  virtual Array<S> rows_again(View<const S> x, const Choices<S>&, const Slots<S>&) const = 0;
  // What the experts' backward gets: the gradient of slots.out (S,H), before weights are applied
  // where weights_of_outputs() is not empty.
  virtual Array<S> combine_backward(View<const S> dy, const Slots<S>&, const Choices<S>&,
                                    ChoiceGradients<S>&) const = 0;
  // (T,K) weights that experts_backward applies, and whose gradient it gives; empty = none.
  virtual View<const S> weights_of_outputs(const Choices<S>&) const = 0;
  // dx, set, from the gradient of the rows; `drows` is used up.
  virtual void dispatch_backward(View<const S> x, Array<S> drows, const Slots<S>&,
                                 const Choices<S>&, ChoiceGradients<S>&, View<S> dx) const = 0;
};

// Each choice of a token is a slot. weight_on_input: the weight multiplies the row, not the output.
template <class S>
std::unique_ptr<Exchange<S>> make_choice_exchange(Backend<S>&, int experts, bool weight_on_input);
// Slots take mixtures of tokens, and tokens mixtures of the slots' outputs (equations.md 2.11).
template <class S>
std::unique_ptr<Exchange<S>> make_mixture_exchange(Backend<S>&, int experts);

}  // namespace moe
