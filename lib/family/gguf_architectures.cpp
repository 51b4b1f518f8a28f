// One function an architecture of llama.cpp: its keys in the words of the published class, and what
// llama.cpp knows of it without being told. Sizes that every architecture has are written before.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/text.h"
#include "lib/family/gguf_config.h"
#include "lib/family/gguf_names.h"
#include "lib/files/file.h"

namespace moe {
namespace {

using Notes = std::vector<std::string>;

// expert_gating_func
constexpr int softmax = 1, sigmoid = 2;

int expert_width(const GgufKeys& k) {
  return k.has("expert_feed_forward_length") ? k.whole("expert_feed_forward_length")
                                             : k.whole("feed_forward_length");
}

// Shared experts of the width of the others.
int shared_experts(const GgufKeys& k) {
  const int width = k.outputs("ffn_up_shexp");
  const int each = expert_width(k);
  if (each < 1 || width % each != 0) {
    k.refuse(concat("has a shared expert of width ", width, ", no multiple of the ", each,
                    " of an expert"));
  }
  return width / each;
}

Json dense_layers(const GgufKeys& k) {
  Json out = Json::array();
  for (int l = 0; l < k.layers(); ++l) {
    if (!k.is_moe(l))
      out.push_back(l);
  }
  return out;
}

// The rule of the choice, where the file says another than `only`.
void refuse_other_gating(const GgufKeys& k, int only) {
  if (const int given = k.whole("expert_gating_func", only); given != only) {
    k.refuse(concat("has the key ", in_quotes(k.key("expert_gating_func")), " = ", given,
                    ", which this program does not have for this architecture"));
  }
}

// Keys under the names that most classes have.
struct ExpertNames {
  const char* experts = "num_experts";
  const char* k = "num_experts_per_tok";
  const char* width = "moe_intermediate_size";
};
void write_experts(const GgufKeys& k, Json& j, const ExpertNames& names) {
  j[names.experts] = k.whole("expert_count");
  j[names.k] = k.whole("expert_used_count");
  j[names.width] = expert_width(k);
}
constexpr ExpertNames local{"num_local_experts", "num_experts_per_tok", "intermediate_size"};
constexpr ExpertNames qwen{};
constexpr ExpertNames routed{"n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"};

void write_window(const GgufKeys& k, Json& j) {
  if (const int window = k.whole("attention.sliding_window", 0); window > 0)
    j["sliding_window"] = window;
}

void llama(const GgufKeys& k, Json& j, Notes&) {
  const bool moe = k.whole("expert_count", 0) > 0;
  j["model_type"] = moe ? "mixtral" : "llama";
  if (!moe)
    return;
  refuse_other_gating(k, softmax);
  write_experts(k, j, local);
  write_window(k, j);
}

void write_qwen(const GgufKeys& k, Json& j) {
  refuse_other_gating(k, softmax);
  write_experts(k, j, qwen);
  j["mlp_only_layers"] = dense_layers(k);
  j["decoder_sparse_step"] = 1;
}

void qwen2moe(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "qwen2_moe";
  write_qwen(k, j);
  j["norm_topk_prob"] = false;
  j["qkv_bias"] = j["attention_bias"];
  j["shared_expert_intermediate_size"] = k.outputs("ffn_up_shexp");
}

void qwen3moe(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "qwen3_moe";
  write_qwen(k, j);
  j["norm_topk_prob"] = true;
}

void olmoe(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "olmoe";
  refuse_other_gating(k, softmax);
  write_experts(k, j, {"num_experts", "num_experts_per_tok", "intermediate_size"});
  j["norm_topk_prob"] = false;
}

// Groups, scale and shared experts of the DeepSeek line.
void write_deepseek(const GgufKeys& k, Json& j) {
  write_experts(k, j, routed);
  j["n_shared_experts"] = shared_experts(k);
  j["first_k_dense_replace"] = k.leading_dense();
  j["moe_layer_freq"] = 1;
  const double scale = k.real("expert_weights_scale", 0);
  j["routed_scaling_factor"] = scale == 0 ? 1.0 : scale;
  j["norm_topk_prob"] = k.flag("expert_weights_norm", false);
  j["n_group"] = k.whole("expert_group_count", 1);
  j["topk_group"] = k.whole("expert_group_used_count", 1);
}

void deepseek(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "deepseek";
  refuse_other_gating(k, softmax);
  write_deepseek(k, j);
  j["norm_topk_prob"] = false;
}

// Sizes of latent attention: of each head, or, in files from before 2025-04, as they stand.
void write_latent(const GgufKeys& k, Json& j) {
  const bool split = k.has("attention.key_length_mla");
  const int key = k.whole(split ? "attention.key_length_mla" : "attention.key_length");
  const int turned = k.whole("rope.dimension_count");
  if (turned > key) {
    k.refuse(concat("has the key ", in_quotes(k.key("rope.dimension_count")), " = ", turned,
                    " in heads of ", key));
  }
  j["num_key_value_heads"] = j["num_attention_heads"];
  j["head_dim"] = turned;
  j["qk_rope_head_dim"] = turned;
  j["qk_nope_head_dim"] = key - turned;
  j["v_head_dim"] = k.whole(split ? "attention.value_length_mla" : "attention.value_length");
  j["kv_lora_rank"] = k.whole("attention.kv_lora_rank");
  if (k.anywhere("attn_q_a.weight"))
    j["q_lora_rank"] = k.whole("attention.q_lora_rank", k.outputs("attn_q_a"));
  else
    j["q_lora_rank"] = nullptr;
  j["attention_bias"] = k.anywhere("attn_kv_a_mqa.bias");
}

void deepseek2(const GgufKeys& k, Json& j, Notes& notes) {
  const int gating = k.whole("expert_gating_func", softmax);
  if (gating != softmax && gating != sigmoid)
    refuse_other_gating(k, softmax);
  write_deepseek(k, j);
  write_latent(k, j);
  if (gating == sigmoid) {
    j["model_type"] = "deepseek_v3";
    return;
  }
  const bool groups = j["n_group"] > 1;
  j["model_type"] = "deepseek_v2";
  j["topk_method"] = groups ? "group_limited_greedy" : "greedy";
  if (groups) {
    notes.emplace_back(
        "groups of experts are ranked by their best expert, as the published model does; llama.cpp "
        "ranks them by the sum of their two best and chooses other experts");
  }
}

void gpt_oss(const GgufKeys& k, Json& j, Notes& notes) {
  j["model_type"] = "gpt_oss";
  write_experts(k, j, local);
  j["sliding_window"] = k.whole("attention.sliding_window", 128);
  Json kinds = Json::array();
  for (int l = 0; l < k.layers(); ++l)
    kinds.push_back(l % 2 ? "full_attention" : "sliding_attention");
  j["layer_types"] = kinds;
  j["swiglu_limit"] = 7.0;
  if (!j.contains("rope_scaling"))
    j["rope_scaling"] = {{"rope_type", "default"}};
  if (j["rope_scaling"]["rope_type"] != "yarn")
    return;
  j["rope_scaling"]["truncate"] = false;
  notes.emplace_back(
      "the correction range of YaRN is not rounded, as in the published model; llama.cpp rounds "
      "it, "
      "which moves its logits a little");
}

void granitemoe(const GgufKeys& k, Json& j, Notes&) {
  const int shared = k.outputs("ffn_up_shexp");
  j["model_type"] = shared > 0 ? "granitemoeshared" : "granitemoe";
  write_experts(k, j, local);
  j["embedding_multiplier"] = k.real("embedding_scale", 1);
  j["residual_multiplier"] = k.real("residual_scale", 1);
  j["logits_scaling"] = k.real("logit_scale", 1);
  if (k.has("attention.scale"))
    j["attention_multiplier"] = k.real("attention.scale");
  if (shared > 0)
    j["shared_intermediate_size"] = shared;
}

void phimoe(const GgufKeys& k, Json& j, Notes& notes) {
  j["model_type"] = "phimoe";
  write_experts(k, j, local);
  write_window(k, j);
  j["lm_head_bias"] = k.file().find("output.bias") != nullptr;
  notes.emplace_back(
      "experts are chosen by the sparse mixer and norms are LayerNorm, as in the published model; "
      "llama.cpp has a softmax over the two best and RMS norms, and chooses other experts");
}

void dbrx(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "dbrx";
  for (const auto& [ours, theirs] :
       {std::pair{"d_model", "hidden_size"}, std::pair{"n_layers", "num_hidden_layers"},
        std::pair{"n_heads", "num_attention_heads"},
        std::pair{"max_seq_len", "max_position_embeddings"}}) {
    j[ours] = j[theirs];
  }
  j["attn_config"] = {{"kv_n_heads", j["num_key_value_heads"]},
                      {"clip_qkv", k.real("attention.clamp_kqv", 0)},
                      {"rope_theta", j["rope_theta"]}};
  j["ffn_config"] = {{"moe_num_experts", k.whole("expert_count")},
                     {"moe_top_k", k.whole("expert_used_count")},
                     {"ffn_hidden_size", expert_width(k)},
                     {"moe_normalize_expert_weights", 1.0}};
}

// Of a head, where not all of it is turned.
double rotary_share(const GgufKeys& k, const Json& j) {
  const int head = j["head_dim"];
  return double(k.whole("rope.dimension_count", head)) / std::max(head, 1);
}

void glm4moe(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "glm4_moe";
  refuse_other_gating(k, sigmoid);
  write_deepseek(k, j);
  j["use_qk_norm"] = k.anywhere("attn_q_norm.weight");
  j["partial_rotary_factor"] = rotary_share(k, j);
}

void ernie(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "ernie4_5_moe";
  refuse_other_gating(k, softmax);
  write_experts(k, j, {"moe_num_experts", "moe_k", "moe_intermediate_size"});
  j["moe_num_shared_experts"] = shared_experts(k);
  j["moe_layer_start_index"] = k.leading_dense();
  j["moe_layer_interval"] = std::max(1, k.whole("interleave_moe_layer_step", 1));
  int last = k.layers() - 1;
  while (last > 0 && !k.is_moe(last))
    --last;
  j["moe_layer_end_index"] = last;
  j["use_bias"] = j["attention_bias"];
}

void hunyuan(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "hunyuan_v1_moe";
  write_experts(k, j, {"num_experts", "moe_topk", "intermediate_size"});
  if (const int shared = k.outputs("ffn_up_shexp"); shared != expert_width(k)) {
    k.refuse(concat("has a shared expert of width ", shared, " where the ", expert_width(k),
                    " of an expert are expected"));
  }
}

void minimax_m2(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "minimax_m2";
  refuse_other_gating(k, sigmoid);
  write_experts(k, j, local);
  j["partial_rotary_factor"] = rotary_share(k, j);
}

constexpr int experts_of_maverick = 128;  // which has no norm of queries and keys

void llama4(const GgufKeys& k, Json& j, Notes&) {
  j["model_type"] = "llama4_text";
  refuse_other_gating(k, sigmoid);
  j["intermediate_size_mlp"] = k.whole("feed_forward_length");
  write_experts(k, j, local);
  j["attention_chunk_size"] = 8192;
  j["no_rope_layer_interval"] = 4;
  j["use_qk_norm"] = k.whole("expert_count") != experts_of_maverick;
  j["attn_temperature_tuning"] = true;
  j["floor_scale"] = k.real("attention.temperature_length", 8192);
  j["attn_scale"] = k.real("attention.temperature_scale", 0.1);
  Json layers = Json::array();
  for (int l = 0; l < k.layers(); ++l) {
    if (k.is_moe(l))
      layers.push_back(l);
  }
  j["moe_layers"] = layers;
}

constexpr std::array architectures{
    GgufArchitecture{"llama", true, llama},
    GgufArchitecture{"qwen2moe", false, qwen2moe},
    GgufArchitecture{"qwen3moe", false, qwen3moe},
    GgufArchitecture{"qwen3vlmoe", false, qwen3moe},
    GgufArchitecture{"olmoe", false, olmoe},
    GgufArchitecture{"deepseek", true, deepseek},
    GgufArchitecture{"deepseek2", false, deepseek2},
    GgufArchitecture{"gpt-oss", false, gpt_oss},
    GgufArchitecture{"granitemoe", true, granitemoe},
    GgufArchitecture{"phimoe", false, phimoe},
    GgufArchitecture{"dbrx", false, dbrx},
    GgufArchitecture{"glm4moe", false, glm4moe},
    GgufArchitecture{"ernie4_5-moe", false, ernie},
    GgufArchitecture{"hunyuan-moe", false, hunyuan},
    GgufArchitecture{"minimax-m2", false, minimax_m2},
    GgufArchitecture{"llama4", false, llama4},
};

}  // namespace

std::vector<std::string> gguf_architectures() {
  std::vector<std::string> out;
  for (const GgufArchitecture& a : architectures)
    out.emplace_back(a.name);
  return out;
}

bool gguf_laces(const std::string& architecture) {
  const auto found = std::ranges::find(architectures, architecture, &GgufArchitecture::name);
  return found != architectures.end() && found->laced;
}

const GgufArchitecture& gguf_architecture(const GgufKeys& k) {
  const auto found = std::ranges::find(architectures, k.architecture(), &GgufArchitecture::name);
  if (found != architectures.end())
    return *found;
  k.refuse(concat("is of the architecture ", in_quotes(k.architecture()),
                  ", which this program does not compute"),
           concat("it has ", join(gguf_architectures())));
}

}  // namespace moe
