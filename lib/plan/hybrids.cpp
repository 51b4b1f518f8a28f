// Decoders whose layers mix tokens in more than one way: Jamba (Mamba-1), Nemotron 3 (Mamba-2, one
// mixer or feed-forward a layer) and MiniMax-Text-01 (lightning attention).
#include "lib/plan/keys.h"

namespace moe::plan {
namespace {

Mixer plain_attention(const Keys& r, Count hidden) {
  Mixer m;
  m.heads = r.positive("num_attention_heads");
  m.kv_heads = r.whole("num_key_value_heads", m.heads);
  m.head_dim = r.whole("head_dim", hidden / m.heads);
  return m;
}

Feed jamba_feed(const Keys& r, bool moe) {
  Feed f{.width = r.positive("intermediate_size")};
  if (!moe)
    return f;
  f.experts = r.positive("num_experts");
  f.k = r.positive("num_experts_per_tok");
  check_choices(r, "num_experts_per_tok", f.k, "num_experts", f.experts);
  return f;
}

Description jamba(const Keys& r) {
  Description d = read_sizes(r);
  Mixer mamba{.kind = MixerKind::mamba1};
  mamba.inner = r.whole("mamba_expand", 2) * d.hidden;
  mamba.state = r.whole("mamba_d_state", 16);
  mamba.rank = r.has("mamba_dt_rank") && r.j["mamba_dt_rank"].is_number_integer()
                   ? r.whole("mamba_dt_rank")
                   : (d.hidden + 15) / 16;
  const Mixer attention = plain_attention(r, d.hidden);
  const auto chosen = [&](const char* period, Count p, const char* offset, Count o, Count l) {
    return l % std::max<Count>(1, r.whole(period, p)) == r.whole(offset, o);
  };
  for (std::size_t l = 0; l < d.layers.size(); ++l) {
    const bool attends = chosen("attn_layer_period", 8, "attn_layer_offset", 4, Count(l));
    d.layers[l] = {.mixers = {attends ? attention : mamba},
                   .feed = jamba_feed(
                       r, chosen("expert_layer_period", 2, "expert_layer_offset", 1, Count(l)))};
  }
  return d;
}

// One letter a layer: M Mamba-2, E experts, * attention, - dense.
std::string nemotron_pattern(const Keys& r, std::size_t layers) {
  std::string out = r.text("hybrid_override_pattern", "");
  if (out.empty() && r.has("layers_block_type") && r.j["layers_block_type"].is_array()) {
    for (const Json& name : r.j["layers_block_type"]) {
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

Description nemotron(const Keys& r) {
  Description d = read_sizes(r);
  const std::string pattern = nemotron_pattern(r, d.layers.size());
  if (r.has("moe_latent_size"))
    r.refuse("moe_latent_size is set, and experts behind a projection are not planned");
  Mixer mamba{.kind = MixerKind::mamba2};
  mamba.heads = r.positive("mamba_num_heads");
  mamba.head_dim = r.positive("mamba_head_dim");
  mamba.inner = mamba.heads * mamba.head_dim;
  mamba.state = r.positive("ssm_state_size");
  mamba.groups = r.positive("n_groups");
  Feed moe{.matrices = 2, .correction_bias = true};
  moe.experts = r.positive("n_routed_experts");
  moe.k = r.positive("num_experts_per_tok");
  moe.width = r.positive("moe_intermediate_size");
  check_choices(r, "num_experts_per_tok", moe.k, "n_routed_experts", moe.experts);
  moe.shared_width = r.whole("moe_shared_expert_intermediate_size", 0);
  for (std::size_t l = 0; l < d.layers.size(); ++l) {
    Layer& layer = d.layers[l];
    layer.norms = 1;
    if (pattern[l] == 'E')
      layer.feed = moe;
    else if (pattern[l] == '-')
      layer.feed = Feed{.width = r.positive("intermediate_size"), .matrices = 2};
    else
      layer.mixers = {pattern[l] == '*' ? plain_attention(r, d.hidden) : mamba};
  }
  return d;
}

Description minimax(const Keys& r) {
  Description d = read_sizes(r);
  const Mixer full = plain_attention(r, d.hidden);
  Mixer lightning = full;
  lightning.kind = MixerKind::lightning;
  Feed moe{.width = r.positive("intermediate_size")};
  moe.experts = r.positive("num_local_experts");
  moe.k = r.positive("num_experts_per_tok");
  check_choices(r, "num_experts_per_tok", moe.k, "num_local_experts", moe.experts);
  const std::vector<Count> type = r.list("attn_type_list");  // 1 = full, the published key
  const bool named = r.has("layer_types") && r.j["layer_types"].is_array();
  for (std::size_t l = 0; l < d.layers.size(); ++l) {
    bool attends = l % 8 == 7;
    if (named)
      attends = l < r.j["layer_types"].size() && r.j["layer_types"][l] == "full_attention";
    else if (l < type.size())
      attends = type[l] == 1;
    d.layers[l] = {.mixers = {attends ? full : lightning}, .feed = moe};
  }
  return d;
}

}  // namespace

Description read_hybrid(const Keys& r, const std::string& type) {
  return type == "jamba" ? jamba(r) : type == "nemotron_h" ? nemotron(r) : minimax(r);
}

}  // namespace moe::plan
