// Keys and values that experts of attention share, and the attention of their heads (JetMoE): the
// j-th choice of a token is a row of kv_heads heads that see the keys and values of all rows
// before, head by head.
#pragma once
#include "lib/layer/expert_attention.h"
#include "lib/model/config.h"
#include "lib/model/mixer_shape.h"

namespace moe {

// The layer's own window and rotary embedding, as attention has them.
template <class S>
std::unique_ptr<ExpertAttention<S>> make_expert_attention(const ModelConfig&, int layer,
                                                          Backend<S>&);
// Its share of a layer's sizes; queries and outputs are the experts of its FeedShape. `choices`: of
// a token.
MixerShape expert_attention_shape(const ModelConfig&, int layer, Count choices);

}  // namespace moe
