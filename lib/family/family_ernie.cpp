// ERNIE 4.5: neighbouring numbers turn together, a correction bias on softmax scores, dense layers
// in front, shared experts. ERNIE 4.5 VL has two groups of experts in each layer, of text and of
// what is seen, with a router each and widths of their own, and turns by height, width and time.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

constexpr ExpertKeys experts{"moe_num_experts", "moe_k", "moe_intermediate_size"};

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  r.must_be("use_bias", false, false);
  c.rope_interleaved = true;
  const int k = read_experts(r, c, experts);
  c.moe.router = concat("softmax:k=", k, ",norm=1,bias=1");
  c.moe.shared_width = c.moe.width * r.whole("moe_num_shared_experts", 2);
  c.dense_width = r.whole("intermediate_size");
  const int first = r.whole("moe_layer_start_index", 1);
  const int step = std::max(1, r.whole("moe_layer_interval", 1));
  const double end = r.real("moe_layer_end_index", -1);  // -1: the last layer
  set_moe_layers(c,
                 [&](int l) { return l >= first && (end < 0 || l <= end) && (l + 1) % step == 0; });
}

// MoE layers from the first to the last, in steps as wide as the first of them.
void write(const ModelConfig& c, Json& j) {
  write_experts(c, j, experts);
  std::vector<int> moe;
  for (int l = 0; l < c.layers; ++l) {
    if (c.is_moe(l))
      moe.push_back(l);
  }
  j["moe_layer_start_index"] = moe.empty() ? 0 : moe.front();
  j["moe_layer_end_index"] = moe.empty() ? 0 : moe.back();
  j["moe_layer_interval"] = moe.size() > 1 ? moe[1] - moe[0] : 1;
  j["moe_num_shared_experts"] = std::max<Index>(1, c.moe.shared_width / c.moe.width);
  j["intermediate_size"] = c.dense_baseline_width();
  j["use_bias"] = false;
}

// Experts of text and of vision, in this order, with one mask: one router would have twice the
// rows.
void read_groups(const ConfigReader& t, ModelConfig& c) {
  const std::vector<int> width = t.wholes("moe_intermediate_size");
  if (width.size() != 2 || width[0] < 1 || width[1] < 1)
    t.refuse(concat("moe_intermediate_size is ", t.at("moe_intermediate_size").dump()),
             "two widths, of experts of text and of vision");
  const int each = t.positive("moe_num_experts");
  const int k = t.whole("moe_k");
  if (k < 1 || k > each)
    t.refuse(concat("moe_k is ", k, " and moe_num_experts is ", each),
             "between 1 and the number of experts of a group");
  c.moe.experts = 2 * each;
  c.moe.width = std::max(width[0], width[1]);
  c.moe.widths.assign(std::size_t(each), width[0]);
  c.moe.widths.insert(c.moe.widths.end(), std::size_t(each), width[1]);
  const std::string seen = concat(each, "-", 2 * each - 1);
  c.moe.router = concat("softmax:k=", k, ",norm=1,norm_min=", t.real("moe_norm_min", 1e-12),
                        ",bias=1,experts=text:0-", each - 1, "/image:", seen, "/video:", seen);
  c.moe.shared_width = Index(width[0]) * t.whole("moe_num_shared_experts");
}

void read_vl(const ConfigReader& r, ModelConfig& c) {
  const Json text = text_of_whole(r, true);
  const ConfigReader t = text_part(r).with(text);
  read_common(t, c);
  t.must_be("use_bias", false, false);
  c.rope_interleaved = true;
  if (c.rope != "default")
    t.cannot_compute(concat(rope_place(t),
                            " asks for another rule than default, and the class has "
                            "no other"));
  read_axes(t, c, PairRule::ernie, {22, 22, 20});
  read_groups(t, c);
  c.dense_width = t.positive("intermediate_size");
  const std::vector<std::string> kinds =
      t.has("mlp_layer_types") ? layer_words(t, "mlp_layer_types", c.layers, {"dense", "sparse"})
                               : std::vector<std::string>();
  set_moe_layers(c,
                 [&](int l) { return kinds.empty() ? l > 0 : kinds[std::size_t(l)] == "sparse"; });
}

void write_vl(const ModelConfig& c, Json& j) {
  const int each = c.moe.experts / 2;
  const auto width = [&](int expert) {
    return int(c.moe.width_of(expert));
  };
  const RouterFacts f = router_facts(c);
  std::vector<std::string> kinds;
  for (int l = 0; l < c.layers; ++l)
    kinds.emplace_back(c.is_moe(l) ? "sparse" : "dense");
  j["moe_num_experts"] = each;
  j["moe_k"] = f.k;
  j["moe_norm_min"] = f.least;
  j["moe_intermediate_size"] = {width(0), width(each)};
  j["moe_num_shared_experts"] = c.moe.shared_width / width(0);
  j["mlp_layer_types"] = kinds;
  j["intermediate_size"] = c.dense_baseline_width();
  j["use_bias"] = false;
  j.erase("attention_bias");
  write_axes(c, j);
  write_inside(j, "ernie4_5_vl_moe_text");
}

}  // namespace

FamilyRules ernie4_5_vl_moe_family() {
  return {read_vl,
          write_vl,
          {.correction_bias = "mlp.moe_statics.e_score_correction_bias",
           .always_corrected = true,
           .correction_rows = 2,
           .divided = {{.part = "moe.router.weight",
                        .names = {"mlp.gate.weight", "mlp.gate.weight_1"},
                        .swapped = true}},
           .own_widths = true,
           .beside = {"model.vision_model.", "model.resampler_model.", "vision_model.",
                      "model.vision_tower."}},
          {},
          true};
}

FamilyRules ernie4_5_moe_family() {
  Packed packed = qwen_packed();
  packed.correction_bias = "mlp.gate.moe_statics.e_score_correction_bias";
  return {read,
          write,
          {.correction_bias = "mlp.moe_statics.e_score_correction_bias",
           .always_corrected = true,
           .correction_rows = 1},
          packed};
}

}  // namespace moe
