// Case files of single mixers (kind "mixer"): a batch of sequences of one length through one mixer
// in both directions, from given states where the case has them, with everything expected in f64.
#pragma once
#include "lib/backend/backend.h"
#include "lib/golden/comparison.h"

namespace moe {

// |a - b| / max(1, max |b|) of a tensor
inline constexpr double mixer_tolerance64 = 1e-10, mixer_tolerance32 = 5e-6,
                        mixer_gradient_tolerance32 = 2e-5;

// Compares outputs and states within `value`, gradients within `gradient`. Throws Unsupported where
// our mixers lack what the case asks for.
template <class S>
void run_golden_mixer(const GoldenFile&, Backend<S>&, Comparison&, double value, double gradient);

}  // namespace moe
