// What one call of a MoE layer, or of a whole decoder, is about.
#pragma once
#include <cstdint>
#include <span>

#include "lib/layer/past.h"
#include "lib/router/input.h"

namespace moe {

// What the gate of a layer gets besides x.
struct GateOptions {
  const GivenNoise* given = nullptr;
  // (T,E) logits z of the MoE layer before, where gate_residual is set
  const Matrix<double>* previous = nullptr;
  bool on_host = false;  // the scores are wanted on the host as the pass goes (gate residual)
};

// The MoE layers of a model, for balance losses.
struct AmongLayers {
  int count = 1;               // whose balance losses add up
  bool losses_follow = false;  // losses over all layers are left to MoeLayer::balance_across()
};

struct Pass {
  const Batch& batch;
  bool training = false;
  Rng* rng = nullptr;
  double loss_scale = 1;  // of the losses' gradients (1/micro-batches)
  // (E) counts of the other micro-batches of the step, for scope=global; of a decoder those of all
  // its MoE layers, (moe_layers*E)
  std::span<const std::int64_t> other_counts;
  // These counts are known after the forward pass only: balance_step() of layer or decoder.
  bool counts_follow = false;
  GateOptions gate;
  AmongLayers layers;
  MixerPast* past = nullptr;  // of experts of attention, where sequences go on
};

// What comes and goes by the gate in a backward pass, besides dx.
struct GateGradients {
  // (T,E) of this layer's z, from the layer after it (gate residual); null = none
  const Matrix<double>* dlogits = nullptr;
  Matrix<double>* dprevious = nullptr;             // added to: of GateOptions::previous
  std::vector<Matrix<double>>* dscores = nullptr;  // set: of every score (z after temperature)
};

}  // namespace moe
