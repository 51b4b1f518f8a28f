// Llama 4, the text part: attention in chunks, every n-th layer without rotary embedding but with
// queries stretched by position, experts whose input is weighed, a shared expert. "llama4" is the
// whole model, whose text part stands inside; "llama4_text" that part alone.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

constexpr ExpertKeys experts{"num_local_experts", "num_experts_per_tok", "intermediate_size"};

void read_layers(const ConfigReader& r, ModelConfig& c) {
  // one a layer; 1 = with rotary embedding, whatever the name says
  const std::vector<int> turned = r.wholes("no_rope_layers");
  if (!turned.empty() && turned.size() != std::size_t(c.layers)) {
    r.refuse(concat("no_rope_layers names ", turned.size(), " layers and num_hidden_layers is ",
                    c.layers));
  }
  const int interval = std::max(1, r.whole("no_rope_layer_interval", 4));
  const int step = std::max(1, r.whole("interleave_moe_layer_step", 1));
  for (int l = 0; l < c.layers; ++l) {
    if (turned.empty() ? (l + 1) % interval == 0 : turned[std::size_t(l)] == 0)
      c.no_rope_layers.push_back(l);
  }
  if (r.has("layer_types")) {
    const std::vector<std::string> kinds =
        layer_words(r, "layer_types", c.layers, {"chunked_attention", "full_attention"});
    for (int l = 0; l < c.layers; ++l) {
      if ((kinds[std::size_t(l)] == "full_attention") == c.has_rope(l)) {
        r.cannot_compute(concat("layer_types has '", kinds[std::size_t(l)], "' for layer ", l,
                                ", which no_rope_layers says otherwise"),
                         "chunks in the layers with rotary embedding, and only there");
      }
    }
  }
  const std::vector<int> moe = r.wholes("moe_layers");
  set_moe_layers(c, [&](int l) {
    return r.has("moe_layers") ? std::ranges::find(moe, l) != moe.end() : l % step == step - 1;
  });
}

void read_text(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.rope_interleaved = true;
  c.chunk = r.whole("attention_chunk_size", r.is_null("attention_chunk_size") ? 0 : 8192);
  if (r.flag("use_qk_norm", true))
    c.qk_norm = QkNorm::length_after;
  if (r.flag("attn_temperature_tuning", true)) {
    c.stretch_floor = r.real("floor_scale", 8192);
    c.stretch_scale = r.real("attn_scale", 0.1);
    if (!(c.stretch_floor > 0))
      r.refuse(concat("floor_scale is ", c.stretch_floor, " and must be above 0"));
  }
  read_layers(r, c);
  const int k = read_experts(r, c, experts);
  c.moe.router = concat("sigmoid:k=", k, ",norm=0");
  c.moe.weight_on_input = true;
  c.moe.shared_width = c.moe.width;
  c.dense_width = r.whole("intermediate_size_mlp", 16384);
}
// 4.x knows no biases here, and without a size of its chunks neither version runs.
void write_text(const ModelConfig& c, Json& j) {
  write_experts(c, j, experts);
  std::vector<int> turned, moe;
  for (int l = 0; l < c.layers; ++l) {
    turned.push_back(c.has_rope(l));
    if (c.is_moe(l))
      moe.push_back(l);
  }
  j["no_rope_layers"] = turned;
  j["moe_layers"] = moe;
  j["interleave_moe_layer_step"] = 1;
  j["intermediate_size_mlp"] = c.dense_baseline_width();
  j["attention_chunk_size"] = c.chunk > 0 ? c.chunk : 8192;
  j["use_qk_norm"] = c.qk_norm == QkNorm::length_after;
  j["attn_temperature_tuning"] = c.stretch_scale != 0;
  j["attn_scale"] = c.stretch_scale;
  j["floor_scale"] = int(std::max(1.0, c.stretch_floor));
}
void read_whole(const ConfigReader& r, ModelConfig& c) {
  read_text(text_part(r), c);
}
void write_whole(const ModelConfig& c, Json& j) {
  write_text(c, j);
  write_inside(j, "llama4_text");
}

Names names() {
  const std::string feed = "feed_forward.";
  return {
      .below = {{"moe.router.weight", feed + "router.weight"}},
      .shared = feed + "shared_expert.",
      .dense = feed,
      .joined = {
          {.name = feed + "experts.gate_up_proj",
           .parts = {"moe.experts.gate", "moe.experts.up"},
           .swapped = true},
          {.name = feed + "experts.down_proj", .parts = {"moe.experts.down"}, .swapped = true}}};
}

}  // namespace

FamilyRules llama4_text_family() {
  return {read_text, write_text, names()};
}
FamilyRules llama4_family() {
  Names n = names();
  n.prefix = "language_model.model.";
  n.output = "language_model.lm_head";
  n.beside = {"vision_model.", "multi_modal_projector."};
  return {read_whole, write_whole, n, {}, true};
}

}  // namespace moe
