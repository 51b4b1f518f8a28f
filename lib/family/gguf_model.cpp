// Names of the tensors in GGUF files, and the opening of one.
#include "lib/family/gguf_model.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/gguf_weights.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"
#include "lib/family/gguf_config.h"
#include "lib/family/gguf_names.h"
#include "lib/files/file.h"

namespace moe {
namespace {

constexpr std::string_view place_of_layers = "blk.";

// The second norm of a layer, by the architecture.
std::string feed_norm(const GgufKeys& k) {
  for (const char* name : {"ffn_norm", "post_attention_norm", "attn_output_norm"}) {
    if (k.tensor(0, concat(name, ".weight")))
      return name;
  }
  k.refuse("has no tensor 'blk.0.ffn_norm.weight'", "the file is not complete");
}

GgufLayout layout_of(const GgufArchitecture& a, const ModelConfig& c) {
  GgufLayout out;
  out.laced_head = a.laced ? c.head_dim : 0;
  out.query_rows = Index(c.heads) * c.head_dim;
  out.key_rows = Index(c.kv_heads) * c.head_dim;
  if (c.kv_rank > 0) {
    out.heads = c.heads;
    out.nope = c.nope_dim;
    out.value = c.value_dim;
  }
  return out;
}

// The class's rule of which layers have experts against the tensors that are there, before anything
// is made by what the keys say.
void check_layers(const GgufKeys& k, const ModelConfig& c) {
  for (int l = 0; l < c.layers; ++l) {
    const std::string at = concat("'blk.", l, ".");
    if (!k.tensor(l, "attn_norm.weight")) {
      k.refuse(concat("has the key ", in_quotes(k.key("block_count")), " for ", c.layers,
                      " layers that run and no tensor ", at, "attn_norm.weight'"));
    }
    if (k.is_moe(l) != c.is_moe(l)) {
      k.refuse(concat(k.is_moe(l) ? "has a" : "has no", " tensor ", at,
                      "ffn_gate_inp.weight' and the model ", c.is_moe(l) ? "has" : "has no",
                      " experts there"));
    }
    const GgufTensor* router = k.tensor(l, "ffn_gate_inp.weight");
    if (router && router->dims[0] != c.moe.experts) {
      k.refuse(concat("has the key ", in_quotes(k.key("expert_count")), " = ", c.moe.experts,
                      " and the tensor ", at, "ffn_gate_inp.weight' of shape ",
                      text_of(router->dims)));
    }
  }
}

}  // namespace

bool beside_the_layers(const ModelConfig& c, const std::string& tensor) {
  if (tensor.starts_with("rope_freqs.") || tensor.starts_with("rope_factors_"))
    return true;
  if (!tensor.starts_with(place_of_layers))
    return false;
  int layer = -1;
  const char* end = tensor.data() + tensor.size();
  const auto [stop, code] = std::from_chars(tensor.data() + place_of_layers.size(), end, layer);
  return code == std::errc() && stop != end && *stop == '.' && layer >= c.layers;
}

GgufModel open_gguf(const std::filesystem::path& path) {
  const auto file = std::make_shared<const GgufFile>(path);
  const GgufKeys k(*file);
  GgufModel out;
  const Json config = gguf_config(*file, out.notes);
  out.published = config_from_json(config, path.string());
  const ModelConfig& c = out.published.config;
  check_layers(k, c);
  const bool corrected = rules_of(out.published.family).names.always_corrected;
  out.names = std::make_shared<const Names>(gguf_names(feed_norm(k), corrected));
  out.weights = gguf_weights(file, layout_of(gguf_architecture(k), c));
  return out;
}

}  // namespace moe
