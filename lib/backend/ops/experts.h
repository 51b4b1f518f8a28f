// The weights of one expert-shaped body for E experts, their gradients, and what the forward pass
// leaves for the backward pass.
#pragma once
#include "lib/backend/array.h"
#include "lib/backend/kinds.h"
#include "lib/backend/weight.h"

namespace moe {

// gate and up (E*I,H), down (E*H,I); biases (E,I), (E,I), (E,H), empty where there are none
template <class S>
struct ExpertWeights {
  Activation activation = Activation::swiglu;
  Weight gate, up, down;  // gate empty for ungated activations
  View<const S> gate_bias, up_bias, down_bias;
};
template <class S>
struct ExpertGrads {  // added to; same shapes; empty = not wanted
  View<S> gate, up, down, gate_bias, up_bias, down_bias;
};
// Pre-activations, (S,I) each; gate empty where ungated.
template <class S>
struct ExpertTape {
  Array<S> gate, up;
};

}  // namespace moe
