// Decoders whose layers mix tokens in more than one way: Jamba (Mamba-1), Nemotron 3 (Mamba-2, one
// mixer or feed-forward a layer) and MiniMax-Text-01 (lightning attention).
#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/plan/readers.h"

namespace moe::plan {
namespace {

FeedShape jamba_feed(const ConfigReader& r, bool moe) {
  FeedShape f{.width = r.positive("intermediate_size")};
  if (moe)
    read_choices(r, {"num_experts", "num_experts_per_tok"}, f);
  return f;
}

Architecture jamba(const ConfigReader& r) {
  Architecture a = read_sizes(r);
  MixerShape mamba{.kind = MixerKind::mamba1};
  mamba.inner = Count(r.whole("mamba_expand", 2)) * a.hidden;
  mamba.state = r.whole("mamba_d_state", 16);
  mamba.rank = r.has("mamba_dt_rank") && r.at("mamba_dt_rank").is_number_integer()
                   ? r.whole("mamba_dt_rank")
                   : (a.hidden + 15) / 16;
  const MixerShape attention = read_attention(r, a.hidden);
  const auto chosen = [&](const char* period, int p, const char* offset, int o, Count l) {
    return l % std::max(1, r.whole(period, p)) == r.whole(offset, o);
  };
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    const bool attends = chosen("attn_layer_period", 8, "attn_layer_offset", 4, Count(l));
    a.layers[l] = {.mixers = {attends ? attention : mamba},
                   .feed = jamba_feed(
                       r, chosen("expert_layer_period", 2, "expert_layer_offset", 1, Count(l)))};
  }
  return a;
}

// One letter a layer: M Mamba-2, E experts, * attention, - dense.
std::string nemotron_pattern(const ConfigReader& r, std::size_t layers) {
  std::string out = r.text("hybrid_override_pattern", "");
  if (out.empty() && r.has("layers_block_type") && r.at("layers_block_type").is_array()) {
    for (const Json& name : r.at("layers_block_type")) {
      out += name == "moe"                                     ? 'E'
             : name == "full_attention" || name == "attention" ? '*'
             : name == "mlp"                                   ? '-'
                                                               : 'M';
    }
  }
  if (out.size() != layers || out.find_first_not_of("ME*-") != out.npos) {
    r.refuse(concat("hybrid_override_pattern is '", out.substr(0, 80), "' for ", layers, " layers"),
             "one of M, E, * and - for each layer");
  }
  return out;
}

Architecture nemotron(const ConfigReader& r) {
  Architecture a = read_sizes(r);
  const std::string pattern = nemotron_pattern(r, a.layers.size());
  if (r.has("moe_latent_size"))
    r.refuse("moe_latent_size is set, and experts behind a projection are not planned");
  MixerShape mamba{.kind = MixerKind::mamba2};
  mamba.heads = r.positive("mamba_num_heads");
  mamba.head_dim = r.positive("mamba_head_dim");
  mamba.inner = mamba.heads * mamba.head_dim;
  mamba.state = r.positive("ssm_state_size");
  mamba.groups = r.positive("n_groups");
  FeedShape moe{.matrices = 2, .correction_bias = true};
  read_choices(r, {"n_routed_experts", "num_experts_per_tok"}, moe);
  moe.width = r.positive("moe_intermediate_size");
  moe.shared_width = r.whole("moe_shared_expert_intermediate_size", 0);
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    LayerShape& layer = a.layers[l];
    layer.norms = 1;
    if (pattern[l] == 'E')
      layer.feed = moe;
    else if (pattern[l] == '-')
      layer.feed = FeedShape{.width = r.positive("intermediate_size"), .matrices = 2};
    else
      layer.mixers = {pattern[l] == '*' ? read_attention(r, a.hidden) : mamba};
  }
  return a;
}

Architecture minimax(const ConfigReader& r) {
  Architecture a = read_sizes(r);
  const MixerShape full = read_attention(r, a.hidden);
  MixerShape lightning = full;
  lightning.kind = MixerKind::lightning;
  FeedShape moe{.width = r.positive("intermediate_size")};
  read_choices(r, {"num_local_experts", "num_experts_per_tok"}, moe);
  const std::vector<int> type = r.wholes("attn_type_list");  // 1 = full, the published key
  const bool named = r.has("layer_types") && r.at("layer_types").is_array();
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    bool attends = l % 2 == 0;  // as the class has it
    if (named)
      attends = l < r.at("layer_types").size() && r.at("layer_types")[l] == "full_attention";
    else if (l < type.size())
      attends = type[l] == 1;
    a.layers[l] = {.mixers = {attends ? full : lightning}, .feed = moe};
  }
  return a;
}

}  // namespace

Architecture read_hybrid(const ConfigReader& r, const std::string& type) {
  return type == "jamba" ? jamba(r) : type == "nemotron_h" ? nemotron(r) : minimax(r);
}

}  // namespace moe::plan
