// Hunyuan-A13B: queries and keys normalised per head after they are turned, a shared expert as wide
// as the others, frequencies stretched by a fixed alpha.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

// A number, or a list of one number a layer that must all be the same.
int same(const ConfigReader& r, const char* key) {
  if (!r.at(key).is_array())
    return r.whole(key);
  const std::vector<int> all = r.wholes(key);
  if (all.empty() || std::ranges::count(all, all[0]) != std::ptrdiff_t(all.size()))
    r.refuse(concat(key, " differs between layers and this program has one for all"));
  return all[0];
}

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.qk_norm = QkNorm::head_after;
  r.must_be("use_cla", false, false);
  c.moe.experts = same(r, "num_experts");
  const int k = same(r, "moe_topk");
  if (k < 1 || k > c.moe.experts) {
    r.refuse(concat("moe_topk is ", k, " and num_experts is ", c.moe.experts),
             "between 1 and the number of experts");
  }
  c.moe.router = concat("softmax:k=", k, ",norm=1");
  c.moe.width = r.whole("intermediate_size");
  c.moe.shared_width = c.moe.width;
}

void write(const ModelConfig& c, Json& j) {
  write_experts(c, j, {"num_experts", "moe_topk", "intermediate_size"});
  j["attention_bias"] = c.qkv_bias;
}

}  // namespace

FamilyRules hunyuan_v1_moe_family() {
  return {read,
          write,
          {.below = {{"moe.router.weight", "mlp.gate.wg.weight"},
                     {"attention.q_norm", "self_attn.query_layernorm.weight"},
                     {"attention.k_norm", "self_attn.key_layernorm.weight"}},
           .shared = "mlp.shared_mlp."},
          qwen_packed()};
}

}  // namespace moe
