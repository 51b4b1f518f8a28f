// LongCat-Flash: each of its layers is two of ours, with experts beside the first dense
// feed-forward whose output comes behind the second; some experts give back what they read.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

void read_identities(const ConfigReader& r, ModelConfig& c) {
  const int bodies = c.moe.experts;
  const int identities = r.whole("zero_expert_num");
  if (identities == 0)
    return;
  if (r.has("zero_expert_type") && r.text("zero_expert_type") != "identity") {
    r.cannot_compute(concat("zero_expert_type is '", r.text("zero_expert_type"),
                            "' and this program does not have it"),
                     "identity");
  }
  c.moe.experts += identities;
  c.moe.types.assign(std::size_t(c.moe.experts), ExpertKind::copy);
  std::fill_n(c.moe.types.begin(), bodies, ExpertKind::ffn);
}

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c, {.layers = "num_layers"});
  read_latent(r, c);
  if (c.q_rank == 0)
    r.refuse("q_lora_rank is missing, and queries come from a latent row");
  c.layers *= 2;
  c.q_latent_scale = std::sqrt(double(c.hidden) / c.q_rank);
  c.kv_latent_scale = std::sqrt(double(c.hidden) / c.kv_rank);
  c.dense_beside = DenseBeside::shortcut;
  c.dense_width = r.positive("ffn_hidden_size");
  set_moe_layers(c, [](int l) { return l % 2 == 0; });
  if (r.flag("router_bias", false) || r.flag("norm_topk_prob", false)) {
    r.cannot_compute(
        "router_bias or norm_topk_prob is true, which transformers reads and does not compute",
        "both false, as the published model has them");
  }
  c.moe.experts = r.positive("n_routed_experts");
  c.moe.width = r.positive("expert_ffn_hidden_size");
  const int k = r.positive("moe_topk");
  read_identities(r, c);
  if (k > c.moe.experts) {
    r.refuse(concat("moe_topk is ", k, " and there are ", c.moe.experts,
                    " experts with those of zero_expert_num"));
  }
  c.moe.router =
      concat("softmax:k=", k, ",norm=0,bias=1,scale=", r.real("routed_scaling_factor", 1));
}

void write(const ModelConfig& c, Json& j) {
  const int identities = int(std::ranges::count(c.moe.types, ExpertKind::copy));
  write_latent(c, j);
  j["num_layers"] = c.layers / 2;
  j["ffn_hidden_size"] = c.dense_baseline_width();
  j["expert_ffn_hidden_size"] = c.moe.width;
  j["n_routed_experts"] = c.moe.experts - identities;
  j["zero_expert_num"] = identities;
  j["zero_expert_type"] = "identity";
  j["moe_topk"] = router_facts(c).k;
  j["routed_scaling_factor"] = router_facts(c).scale;
  j["router_bias"] = false;
  j["norm_topk_prob"] = false;
  j.erase("num_hidden_layers");
}

}  // namespace

FamilyRules longcat_flash_family() {
  return {read,
          write,
          {.below = {{"attention_norm", "input_layernorm.%.weight"},
                     {"feed_norm", "post_attention_layernorm.%.weight"},
                     {"moe.router.weight", "mlp.router.classifier.weight"}},
           .dense = "mlps.%.",
           .correction_bias = "mlp.router.e_score_correction_bias",
           .always_corrected = true,
           .halves = true,
           .idle = Idle::gates}};
}

}  // namespace moe
