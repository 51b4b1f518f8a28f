// Readers of config.json for the types that the decoder cannot compute: which keys hold the sizes.
// Each fills everything but the name.
#pragma once
#include "lib/files/config_reader.h"
#include "lib/model/architecture.h"

namespace moe::plan {

Architecture read_decoder(const ConfigReader&, const std::string& type);  // MoE-LLaVA
// an encoder, and systems without a config.json of their own
Architecture read_other(const ConfigReader&, const std::string& type);

// What all decoders say under the same keys: sizes, tied embeddings, context; no layers yet.
Architecture read_sizes(const ConfigReader&);
// Attention with as many key heads as num_key_value_heads says.
MixerShape read_attention(const ConfigReader&, Count hidden);
struct ChoiceKeys {
  const char* experts;
  const char* k;
};
// Sets experts and k; refused where more are chosen than there are.
void read_choices(const ConfigReader&, const ChoiceKeys&, FeedShape&);

}  // namespace moe::plan
