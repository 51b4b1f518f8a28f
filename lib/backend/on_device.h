// What only a device offers, so that the host need not wait for it: routing from scores that never
// leave the device, and sums that stay there. dynamic_cast<OnDevice<S>*> of a backend finds it
// where it is offered; host_definition() is its definition on host views.
#pragma once
#include <functional>
#include <memory>

#include "lib/core/top_k.h"

namespace moe {

constexpr double top_k_eps = 1e-20;  // added to every sum that divides, as in lib/router

template <class S>
class OnDevice {
 public:
  virtual ~OnDevice() = default;

  // The k best experts of each token in falling order, ties to the lower id, and their weights; -1
  // and 0 where `valid` is 0. `bias` is added for the selection only. `seen` holds what balance
  // losses and the log need of each token: probabilities (softmax, or s / sum s), lse^2, entropy.
  virtual void top_k(View<const S> z /*(T,E) logits before temperature*/, const TopK&,
                     View<const double> bias /*(1,E) or empty*/,
                     View<const int> valid /*(1,T) or empty*/, View<int> expert /*(T,K)*/,
                     View<S> weight /*(T,K)*/, View<S> seen /*(T,E+2)*/) = 0;
  // Sets dz, the gradient by the logits, from the gradients by the weights, by the probabilities
  // (one for each expert, the same for all tokens) and by lse^2.
  virtual void top_k_backward(View<const S> z, const TopK&, View<const int> valid,
                              View<const int> expert, View<const S> dweight /*(T,K)*/,
                              View<const double> dprobability /*(1,E) or empty*/, double dsquare,
                              View<S> dz) = 0;
  // For benchmarks: a function that enqueues only the GEMMs of a gated expert with this many rows,
  // as the attainable ceiling: (T,H)(H,I) twice and (T,I)(I,H), with `backward` the six of their
  // gradients too, on operands of its own in the dtype of this backend's products. Empty where
  // there is no such library.
  virtual std::function<void()> plain_products(Index /*rows*/, Index /*hidden*/, Index /*width*/,
                                               bool /*backward*/) {
    return {};
  }
  // What the device's own libraries call the queue of its work (cudaStream_t); null where it has
  // none.
  virtual void* queue() {
    return nullptr;
  }
  // sum += x.x, in a fixed order; NaN and Inf come through
  virtual void add_squares(View<const S> x, View<double> sum /*(1,1)*/) = 0;
};

template <class S>
std::unique_ptr<OnDevice<S>> host_definition();

}  // namespace moe
