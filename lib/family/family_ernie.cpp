// ERNIE 4.5: neighbouring numbers turn together, a correction bias on softmax scores, dense layers
// in front, shared experts.
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

}  // namespace

FamilyRules ernie4_5_moe_family() {
  Packed packed = qwen_packed();
  packed.correction_bias = "mlp.gate.moe_statics.e_score_correction_bias";
  return {read,
          write,
          {.correction_bias = "mlp.moe_statics.e_score_correction_bias",
           .always_corrected = true,
           .correction_row = true},
          packed};
}

}  // namespace moe
