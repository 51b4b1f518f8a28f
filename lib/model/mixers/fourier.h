// Fourier position embedding, as Intern-S1-Pro has it: the cosines and sines of the rotary
// frequencies that are kept are mixed by fixed matrices, one for all heads or one for each key
// head, before heads are turned by them; the pairs left over have 1 for both.
#pragma once
#include "lib/backend/backend.h"
#include "lib/layer/parameter.h"
#include "lib/model/config.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rotary.h"

namespace moe {

template <class S>
struct Fourier final : SharedPart<S> {
  Fourier(const ModelConfig&, Backend<S>&);  // c.rope is "fourier:..."

  // Heads of x (T,heads*d) in place, pairs (j, j+d/2): a' = a c - b s, b' = b c + a s; transposed
  // turns gradients back. Computed on the host, which no other model needs.
  void turn(Backend<S>&, View<S> x, View<const int> position /*(1,T), host*/,
            bool transposed) const;
  void collect(std::vector<ModelParameter<S>>& all) override;

  // "fourier_cosine", "fourier_sine" (G,n,n): [group of heads, mixed, frequency]; (n,n) where all
  // heads share them. Drawn once, never trained.
  Parameter<S> cosine, sine;

 private:
  Rotary rotary_;
  int head_dim_;
};

}  // namespace moe
