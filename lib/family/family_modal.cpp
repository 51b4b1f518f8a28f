// Language parts of models that see pictures or hear sounds, where the language is one that is read
// by itself too: Aria (Llama's attention, experts behind a softmax over the chosen logits),
// Qwen3-VL and the thinker of Qwen3-Omni (Qwen3's layers, turned by three axes), Kimi K2.5
// (DeepSeek-V3). Sources: the classes of transformers 5.24. Encoders and projectors are left alone.
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

constexpr ExpertKeys aria_experts{"moe_num_experts", "moe_topk", "intermediate_size"};
constexpr std::array<int, 3> qwen_sections{24, 20, 20};  // where a file has none

void read_aria(const ConfigReader& r, ModelConfig& c) {
  const Json text = text_of_whole(r, false);
  const ConfigReader t = text_part(r).with(text);
  read_common(t, c);
  c.qkv_bias = c.o_bias = t.flag("attention_bias", false);
  const int k = read_experts(t, c, aria_experts);
  c.moe.router = concat("softmax:k=", k, ",norm=1");
  c.moe.shared_width = c.moe.width * t.whole("moe_num_shared_experts");
}
void write_aria(const ModelConfig& c, Json& j) {
  write_experts(c, j, aria_experts);
  j["moe_num_shared_experts"] = c.moe.shared_width / c.moe.width;
  j["attention_bias"] = c.qkv_bias;
  j["mlp_bias"] = false;
  write_inside(j, "aria_text");
}

// The class takes no other arrangement of the axes, and divides weights by their sum always.
void read_qwen3_vl_moe(const ConfigReader& r, ModelConfig& c) {
  Json text = text_of_whole(r, false);
  text["norm_topk_prob"] = true;
  const ConfigReader t = text_part(r).with(text);
  rules_of("qwen3_moe").read(t, c);
  read_axes(t, c, PairRule::interleaved, qwen_sections);
}
void write_qwen3_vl_moe(const ModelConfig& c, Json& j) {
  rules_of("qwen3_moe").write(c, j);
  j.erase("norm_topk_prob");
  write_axes(c, j);
  write_inside(j, "qwen3_vl_moe_text");
}

void read_thinker(const ConfigReader& r, ModelConfig& c) {
  const Json text = text_of_whole(r, false);
  const ConfigReader t = text_part(r).with(text);
  rules_of("qwen3_moe").read(t, c);
  read_axes(t, c, PairRule::interleaved, qwen_sections);
}
void write_thinker(const ModelConfig& c, Json& j) {
  rules_of("qwen3_moe").write(c, j);
  write_axes(c, j);
  write_inside(j, "qwen3_omni_moe_text");
}
// The whole model: what thinks, beside what speaks.
void read_omni(const ConfigReader& r, ModelConfig& c) {
  const bool alone = r.only_sizes() && !r.has("thinker_config");
  read_thinker(alone ? r : r.in("thinker_config"), c);
}
void write_omni(const ModelConfig& c, Json& j) {
  write_thinker(c, j);
  Json thinker = {{"model_type", "qwen3_omni_moe_thinker"},
                  {"tie_word_embeddings", j["tie_word_embeddings"]},
                  {"text_config", j["text_config"]}};
  j.erase("text_config");
  j["thinker_config"] = std::move(thinker);
}

void read_kimi_k25(const ConfigReader& r, ModelConfig& c) {
  const Json text = text_of_whole(r, true);
  rules_of("deepseek_v3").read(text_part(r).with(text), c);
}
void write_kimi_k25(const ModelConfig& c, Json& j) {
  rules_of("deepseek_v3").write(c, j);
  write_inside(j, "deepseek_v3");
}

}  // namespace

FamilyRules aria_family() {
  Names n{.prefix = "language_model.model.",
          .output = "language_model.lm_head",
          .below = {{"moe.router.weight", "mlp.router.weight"}},
          .joined = {{.name = "mlp.experts.fc1.weight",
                      .parts = {"moe.experts.gate", "moe.experts.up"},
                      .swapped = true},
                     {.name = "mlp.experts.fc2.weight",
                      .parts = {"moe.experts.down"},
                      .swapped = true}},
          .beside = {"vision_tower.", "multi_modal_projector."}};
  return {read_aria, write_aria, n, {}, true};
}

FamilyRules qwen3_vl_moe_family() {
  return {read_qwen3_vl_moe,
          write_qwen3_vl_moe,
          {.prefix = "model.language_model.",
           .joined = {{.name = "mlp.experts.gate_up_proj",
                       .parts = {"moe.experts.gate", "moe.experts.up"}},
                      {.name = "mlp.experts.down_proj", .parts = {"moe.experts.down"}}},
           .beside = {"model.visual.", "visual."},
           .either_way = true},
          {},
          true};
}

FamilyRules qwen3_omni_moe_thinker_family() {
  return {read_thinker,
          write_thinker,
          {.beside = {"visual.", "audio_tower.", "model.visual.", "model.audio_tower."}},
          {},
          true};
}
FamilyRules qwen3_omni_moe_family() {
  return {read_omni,
          write_omni,
          {.prefix = "thinker.model.",
           .output = "thinker.lm_head",
           .beside = {"thinker.visual.", "thinker.audio_tower.", "talker.", "code2wav."}},
          {},
          true};
}

FamilyRules kimi_k25_family() {
  return {read_kimi_k25,
          write_kimi_k25,
          {.prefix = "language_model.model.",
           .output = "language_model.lm_head",
           .always_corrected = true,
           .layers_too = "blocks.",
           .beside = {"vision_tower.", "mm_projector.", "multi_modal_projector."}},
          {},
          true};
}

}  // namespace moe
