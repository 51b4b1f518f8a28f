// Cases of attention alone (mixer `attention`): of an encoder, of a decoder, from one to the other.
#pragma once
#include "lib/backend/backend.h"
#include "lib/golden/comparison.h"
#include "lib/golden/golden_mixer_case.h"

namespace moe {

template <class S>
void run_golden_attention(const GoldenFile&, const GoldenMixerCase&, Backend<S>&, Comparison&,
                          double value, double gradient);

}  // namespace moe
