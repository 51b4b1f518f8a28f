// Decoders with attention in every layer: which keys hold the sizes, which layers are MoE, which
// biases and norms are there.
#include "lib/plan/keys.h"

namespace moe::plan {

void check_choices(const Keys& r, const char* k_key, Count k, const char* experts_key,
                   Count experts) {
  if (k < 1 || k > experts) {
    r.refuse(concat(k_key, " is ", k, " and ", experts_key, " is ", experts),
             "between 1 and the number of experts");
  }
}

Description read_sizes(const Keys& r) {
  Description d;
  d.hidden = r.positive("hidden_size");
  d.vocabulary = r.positive("vocab_size");
  d.context = r.whole("max_position_embeddings", 0);
  d.tied = r.flag("tie_word_embeddings", false);
  d.layers.resize(std::size_t(r.layers("num_hidden_layers")));
  return d;
}

namespace {

const char* first_key(const Keys& r, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (r.has(key))
      return key;
  }
  return *keys.begin();
}

bool one_of(const std::string& type, std::initializer_list<const char*> names) {
  return std::ranges::any_of(names, [&](const char* n) { return type == n; });
}

Mixer attention_of(const Keys& r, const std::string& type, const Description& d) {
  Mixer m;
  m.heads = r.positive("num_attention_heads");
  m.kv_heads = r.whole("num_key_value_heads", m.heads);
  if (!r.has("head_dim") && d.hidden % m.heads != 0) {
    r.refuse(concat("hidden_size ", d.hidden, " is not divisible by num_attention_heads ", m.heads,
                    " and head_dim is absent"));
  }
  m.head_dim = r.whole("head_dim", type == "gpt_oss" ? 64 : d.hidden / m.heads);
  const bool biased = r.flag("attention_bias", type == "gpt_oss");
  m.qkv_bias = biased ||
               one_of(type, {"qwen2", "moe_llava_qwen", "moe_llava_stablelm", "moe_llava_phi"}) ||
               (type == "qwen2_moe" && r.flag("qkv_bias", true)) ||
               (type == "ernie4_5_moe" && r.flag("use_bias", false));
  m.o_bias = (biased && one_of(type, {"gpt_oss", "phimoe", "olmoe", "llama", "qwen3_moe", "qwen3",
                                      "granitemoe", "granitemoeshared"})) ||
             type == "moe_llava_phi" || (type == "ernie4_5_moe" && m.qkv_bias);
  m.sinks = type == "gpt_oss";
  if (one_of(type, {"qwen3", "qwen3_moe", "interns1_pro", "hunyuan_v1_moe"}) ||
      (type == "glm4_moe" && r.flag("use_qk_norm", false))) {
    m.qk_norm = QkNorm::head;
  }
  if (one_of(type, {"olmoe", "minimax_m2"}))
    m.qk_norm = QkNorm::full;
  const bool windowed = one_of(type, {"mixtral", "mistral", "phimoe", "gpt_oss"}) ||
                        r.flag("use_sliding_window", false);
  if (windowed)
    m.window = r.whole("sliding_window", type == "gpt_oss" ? 128 : 0);
  return m;
}

Mixer latent_of(const Keys& r) {
  Mixer m{.kind = MixerKind::latent};
  m.heads = m.kv_heads = r.positive("num_attention_heads");
  m.q_rank = r.whole("q_lora_rank", 0);
  m.kv_rank = r.positive("kv_lora_rank");
  m.nope = r.positive("qk_nope_head_dim");
  m.rope = r.positive("qk_rope_head_dim");
  m.value = r.positive("v_head_dim");
  m.head_dim = m.nope + m.rope;
  return m;
}

// The MoE feed-forward of the family; experts 0 where the family is dense.
Feed experts_of(const Keys& r, const std::string& type) {
  Feed f;
  if (one_of(type, {"llama", "mistral", "qwen2", "qwen3"}))
    return f;
  const char* experts =
      first_key(r, {"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"});
  const char* k = first_key(r, {"num_experts_per_tok", "moe_topk", "moe_k", "experts_per_token"});
  const auto largest = [&](const char* key) {  // Hunyuan may give a list, one entry a layer
    if (!r.has(key) || !r.j[key].is_array())
      return r.positive(key);
    const std::vector<Count> all = r.list(key);
    if (all.empty() || std::ranges::adjacent_find(all, std::ranges::not_equal_to()) != all.end())
      r.refuse(concat(key, " differs from layer to layer, which is not planned"));
    return all[0];
  };
  f.experts = largest(experts);
  f.k = largest(k);
  check_choices(r, k, f.k, experts, f.experts);
  f.width = r.has("moe_intermediate_size") && !one_of(type, {"hunyuan_v1_moe"})
                ? r.positive("moe_intermediate_size")
                : r.positive("intermediate_size");
  f.bias = type == "gpt_oss" || type == "moe_llava_phi" ||
           (type == "ernie4_5_moe" && r.flag("use_bias", false));
  f.matrices = type == "moe_llava_phi" ? 2 : 3;
  f.router_bias = type == "gpt_oss";
  f.correction_bias =
      one_of(type, {"deepseek_v3", "kimi_k2", "glm4_moe", "minimax_m2", "ernie4_5_moe"});
  if (type == "qwen2_moe") {
    f.shared_width = r.positive("shared_expert_intermediate_size");
    f.shared_gate = true;
  }
  if (type == "ernie4_5_moe")
    f.shared_width = r.whole("moe_num_shared_experts", 0) * f.width;
  if (type == "granitemoeshared")
    f.shared_width = r.whole("shared_intermediate_size", 0);
  if (one_of(type, {"deepseek", "deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe"}))
    f.shared_width = r.whole("n_shared_experts", 0) * f.width;
  if (one_of(type, {"hunyuan_v1_moe", "llama4_text"})) {
    f.shared_width =
        f.width * (type == "llama4_text" ? 1 : std::max<Count>(1, r.whole("num_shared_expert", 1)));
  }
  return f;
}

bool is_moe(const Keys& r, const std::string& type, Count l, Count layers) {
  const auto listed = [&](const char* key) {
    return std::ranges::count(r.list(key), l) > 0;
  };
  const auto every = [&](const char* key) {
    return std::max<Count>(1, r.whole(key, 1));
  };
  if (one_of(type, {"qwen2_moe", "qwen3_moe", "interns1_pro"}))
    return !listed("mlp_only_layers") && (l + 1) % every("decoder_sparse_step") == 0;
  if (one_of(type, {"deepseek", "deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe"})) {
    return l >= r.whole("first_k_dense_replace", type == "glm4_moe" ? 1 : 0) &&
           l % every("moe_layer_freq") == 0;
  }
  if (type == "llama4_text") {
    return r.has("moe_layers") ? listed("moe_layers")
                               : (l + 1) % every("interleave_moe_layer_step") == 0;
  }
  if (type == "ernie4_5_moe") {
    const bool given = r.has("moe_layer_end_index") && r.j["moe_layer_end_index"] != -1;
    return (l + 1) % every("moe_layer_interval") == 0 && l >= r.whole("moe_layer_start_index", 1) &&
           (!given || l <= r.whole("moe_layer_end_index")) && l < layers;
  }
  if (type.starts_with("moe_llava_"))
    return l % 2 == 0;
  return true;
}

Feed dense_of(const Keys& r, const std::string& type, const Feed& moe) {
  Feed f{.matrices = moe.matrices, .bias = moe.bias};
  f.width = type == "llama4_text" && r.has("intermediate_size_mlp")
                ? r.positive("intermediate_size_mlp")
                : r.positive("intermediate_size");
  return f;
}

// DBRX says the same under keys of its own.
Description read_dbrx(const Keys& r) {
  const Keys attention = r.below("attn_config");
  const Keys feed = r.below("ffn_config");
  Description d;
  d.hidden = r.positive("d_model");
  d.vocabulary = r.positive("vocab_size");
  d.context = r.whole("max_seq_len", 0);
  Mixer m;
  m.heads = r.positive("n_heads");
  m.kv_heads = attention.whole("kv_n_heads", 1);
  m.head_dim = d.hidden / m.heads;
  Feed f;
  f.experts = feed.whole("moe_num_experts", 4);
  f.k = feed.whole("moe_top_k", 1);
  f.width = feed.positive("ffn_hidden_size");
  check_choices(feed, "moe_top_k", f.k, "moe_num_experts", f.experts);
  d.layers.assign(std::size_t(r.layers("n_layers")), Layer{.mixers = {m}, .feed = f});
  return d;
}

}  // namespace

Description read_decoder(const Keys& r, const std::string& type) {
  if (type == "dbrx")
    return read_dbrx(r);
  Description d = read_sizes(r);
  if (type == "ernie4_5_moe")
    d.tied = r.flag("tie_word_embeddings", true);
  d.norm_bias = one_of(type, {"phimoe", "moe_llava_stablelm", "moe_llava_phi"});
  const bool latent = one_of(type, {"deepseek_v2", "deepseek_v3", "kimi_k2"});
  const Mixer mixer = latent ? latent_of(r) : attention_of(r, type, d);
  const Feed moe = experts_of(r, type);
  const Count layers = Count(d.layers.size());
  for (Count l = 0; l < layers; ++l) {
    Layer& layer = d.layers[std::size_t(l)];
    layer.mixers = {mixer};
    if (type == "gpt_oss" && l % 2 == 1)
      layer.mixers[0].window = 0;
    if (type == "moe_llava_phi")
      layer.norms = 1;  // attention and feed-forward read the same
    layer.feed = moe.experts > 0 && is_moe(r, type, l, layers) ? moe : dense_of(r, type, moe);
  }
  if (type == "moe_llava_phi" || (type == "phimoe" && r.flag("lm_head_bias", false)))
    d.extra.push_back({"bias of the output", d.vocabulary});
  if (one_of(type, {"deepseek_v3", "kimi_k2"}))
    d.further_layers = r.whole("num_nextn_predict_layers", 0);
  return d;
}

}  // namespace moe::plan
