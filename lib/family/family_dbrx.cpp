// DBRX: LayerNorm without bias, one tensor for queries, keys and values, all clamped, experts
// stacked in flat tensors, other words for everything.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

constexpr ExpertKeys experts{"moe_num_experts", "moe_top_k", "ffn_hidden_size"};

void read(const ConfigReader& r, ModelConfig& c) {
  const ConfigReader attention = r.in("attn_config");
  const ConfigReader feed = r.in("ffn_config");
  read_common(r, c,
              {.hidden = "d_model",
               .layers = "n_layers",
               .heads = "n_heads",
               .kv_heads = "n_kv_heads",
               .context = "max_seq_len"});
  // where it was published; transformers 5 looks at the top only
  if (!r.has("rope_theta") && !r.has("rope_parameters"))
    c.rope_theta = attention.real("rope_theta", 10000);
  c.kv_heads = attention.whole("kv_n_heads", 1);
  c.clip_qkv = attention.real("clip_qkv", 0);
  c.norm = NormKind::layer;
  c.norm_eps = 1e-5;
  if (feed.has("ffn_act_fn"))
    feed.in("ffn_act_fn").must_be("name", "silu");
  const int k = read_experts(feed, c, experts);
  const bool given = feed.is_null("moe_normalize_expert_weights");
  const double power = given ? 0 : feed.real("moe_normalize_expert_weights", 1);
  if (power != 0 && power != 1) {
    feed.cannot_compute(concat("moe_normalize_expert_weights is ", power,
                               " and weights are divided by their sum or not at all"),
                        "1 or null");
  }
  c.moe.router = concat("softmax:k=", k, ",norm=", power == 1);
}

// Its head size, epsilon and rotary rule are fixed, tied embeddings are forbidden, and without a
// clamp transformers 5 does not run.
void write(const ModelConfig& c, Json& j) {
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "hidden_act", "rms_norm_eps", "max_position_embeddings", "attention_dropout",
        "attention_bias", "rope_scaling"}) {
    j.erase(key);
  }
  j["d_model"] = c.hidden;
  j["n_layers"] = c.layers;
  j["n_heads"] = c.heads;
  j["max_seq_len"] = c.context;
  j["tie_word_embeddings"] = false;
  j["attn_config"] = {{"kv_n_heads", c.kv_heads},
                      {"clip_qkv", c.clip_qkv > 0 ? c.clip_qkv : 8.0},
                      {"rope_theta", c.rope_theta}};
  j["ffn_config"] = {{"moe_normalize_expert_weights", norm_topk(c) ? Json(1.0) : Json(nullptr)}};
  write_experts(c, j["ffn_config"], experts);
}

}  // namespace

FamilyRules dbrx_family() {
  const std::string both = "norm_attn_norm.";
  const std::string experts = "ffn.experts.mlp.";
  return {read,
          write,
          {.prefix = "transformer.",
           .layers = "blocks.",
           .embedding = "wte.weight",
           .final_norm = "norm_f",
           .below = {{"attention_norm", both + "norm_1.weight"},
                     {"feed_norm", both + "norm_2.weight"},
                     {"attention.o", both + "attn.out_proj.weight"},
                     {"moe.router.weight", "ffn.router.layer.weight"}},
           .joined = {{.name = both + "attn.Wqkv.weight",
                       .parts = {"attention.q", "attention.k", "attention.v"}},
                      {.name = experts + "w1", .parts = {"moe.experts.gate"}, .flat = true},
                      {.name = experts + "v1", .parts = {"moe.experts.up"}, .flat = true},
                      {.name = experts + "w2",
                       .parts = {"moe.experts.down"},
                       .swapped = true,
                       .flat = true}}}};
}

}  // namespace moe
