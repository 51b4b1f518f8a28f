// Mixers that keep a fixed number of numbers of a sequence, whatever its length: states of
// recurrences, the last rows before a convolution, the last row of a token shift. Their backward
// pass also runs from given states to the gradients by them, for losses that see final states.
#pragma once
#include <string>

#include "lib/backend/array.h"
#include "lib/model/mixer.h"

namespace moe {

// One kind of numbers of a state, those of all sequences end to end: (Q*rows, cols).
template <class S>
struct StatePart {
  std::string name;  // "conv", "ssm"
  Index rows = 1;    // of one sequence
  Array<S> numbers;
  Index heads = 0;       // where it is a matrix a head
  bool swapped = false;  // other implementations write these with the axes swapped
};

// In host memory, whatever the backend.
template <class S>
struct RecurrentState final : MixerState {
  std::vector<StatePart<S>> part;  // in the mixer's order
};

template <class S>
class RecurrentMixer : public Mixer<S> {
 public:
  void backward(const Batch& batch, const MixerTape& tape, View<const S> x, View<const S> dy,
                View<S> dx) override {
    backward_through(batch, tape, x, dy, dx, nullptr);
  }
  // As backward(). `gradient`, where given, holds the gradient by the states after the batch and is
  // set to that by the states before it; forward had a past then.
  virtual void backward_through(const Batch&, const MixerTape&, View<const S> x, View<const S> dy,
                                View<S> dx, RecurrentState<S>* gradient) = 0;
};

}  // namespace moe
