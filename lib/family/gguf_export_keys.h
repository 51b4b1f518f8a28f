// The keys of each architecture, which gguf_architectures.cpp reads.
#pragma once
#include <string>
#include <vector>

#include "lib/checkpoint/gguf_write.h"
#include "lib/model/config.h"

namespace moe {

// A vector that stands in the file for a rule of the rotary embedding.
struct GgufVector {
  std::string name;
  std::vector<float> values;
};

struct GgufExportForm {
  std::string_view family, architecture;
  const char* feed_norm = "ffn_norm";  // the second norm of a layer
  bool own_width = true;               // experts have a key for their width
  bool plain_width = false;            // feed_forward_length is that width, not of dense layers
  bool fused_qkv = false;              // attn_qkv
  bool dense_layers = false;           // llama.cpp has models with layers without experts
};
// nullptr where there is none
const GgufExportForm* gguf_form_of(const std::string& family);

// Keys of sizes, routing and rotary embedding; vectors that go with them are added.
void write_gguf_keys(const GgufExportForm&, const ModelConfig&, GgufKeyWriter&,
                     std::vector<GgufVector>&);

}  // namespace moe
