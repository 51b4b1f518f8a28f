// DeepSeek-V4: attention to a window and to compressed keys in two kinds, several residual streams,
// first layers whose tokens' experts stand in a table, scores that are roots of softplus, SwiGLU
// cut at a limit. As the class of transformers 5.24 computes it: norm_topk_prob, n_shared_experts,
// num_key_value_heads, attention_bias and router_jitter_noise say nothing there (weights are always
// divided by their sum, one shared expert is as wide as the others, one key serves all heads).
#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/family/layer_words.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/compressed_attention.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

constexpr const char *sparse = "compressed_sparse_attention",
                     *heavy = "heavily_compressed_attention";
constexpr int usual_sparse_rate = 4, usual_heavy_rate = 128, usual_hash_layers = 3;
constexpr double usual_share = 64.0 / 512;  // of a head, that is turned

// What one kind of layer turns: the last `dims` numbers of a head, by this rule.
struct Turning {
  int dims = 0;
  double theta = 10000;
  std::string rope = "default";
};

// `rule`: an object like rope_parameters.
Turning turning_of(const ConfigReader& r, const ModelConfig& c, const Json& rule) {
  Json one = r.json();
  for (const char* key : {"rope_scaling", "qk_rope_head_dim", "partial_rotary_factor"})
    one.erase(key);
  one["rope_parameters"] = rule;
  ModelConfig own = c;
  read_rope(r.with(one), own);
  return {own.rotary_dims(), own.rope_theta, own.rope};
}

// The share of a head: said, or by the older key, or the class's.
double share_of(const ConfigReader& r, const ModelConfig& c) {
  if (r.has("partial_rotary_factor"))
    return r.real("partial_rotary_factor", usual_share);
  return r.has("qk_rope_head_dim") ? double(r.positive("qk_rope_head_dim")) / c.head_dim
                                   : usual_share;
}

// Of layers with a window alone, and of those with compressed keys.
struct Turnings {
  Turning window, compressed;
};

Turnings by_kind(const ConfigReader& r, const ModelConfig& c, const ConfigReader& rules) {
  const auto of = [&](const char* kind, const char* theta) {
    const ConfigReader s = rules.in(kind);
    Json rule = s.json();
    if (!rule.contains("rope_theta"))
      rule["rope_theta"] = r.real(theta, 10000);
    if (!rule.contains("partial_rotary_factor")) {
      if (!r.has("partial_rotary_factor")) {
        s.refuse("partial_rotary_factor is missing, which says how much of a head is turned",
                 "here, or beside rope_parameters");
      }
      rule["partial_rotary_factor"] = r.real("partial_rotary_factor", usual_share);
    }
    return turning_of(r, c, rule);
  };
  return {of("main", "rope_theta"), of("compress", "rope_theta")};
}

// The one rule of an older file counts for compressed keys alone, and does not scale their cosines
// unless it says so.
Turnings read_turnings(const ConfigReader& r, const ModelConfig& c) {
  const char* place = rope_place(r);
  const Json empty = Json::object();
  const ConfigReader rules = r.has(place) ? r.in(place) : r.with(empty);
  if (rules.has("main") && rules.has("compress"))
    return by_kind(r, c, rules);
  const double share = share_of(r, c);
  Json compressed = rules.json();
  for (const char* kind : {"main", "compress"})
    compressed.erase(kind);
  compressed["rope_theta"] = r.real("compress_rope_theta", 160000);
  compressed["partial_rotary_factor"] = share;
  const std::string type =
      rules.has("rope_type") ? rules.text("rope_type") : rules.text("type", "default");
  if (type == "yarn" && !rules.has("attention_factor"))
    compressed["attention_factor"] = 1.0;
  const Json window{{"rope_theta", r.real("rope_theta", 10000)}, {"partial_rotary_factor", share}};
  return {turning_of(r, c, window), turning_of(r, c, compressed)};
}

// layer_types, or numbers of rows (0, 4, 128), or the class's own order; entries of layers that
// predict further tokens stand behind them.
std::vector<std::string> kinds_of(const ConfigReader& r, int layers) {
  const auto of_rate = [&](int rate) -> std::string {
    if (rate != 0 && rate != usual_sparse_rate && rate != usual_heavy_rate)
      r.refuse(concat("compress_ratios has ", rate), "0, 4 or 128, or layer_types");
    return rate == 0 ? sliding_attention : rate == usual_heavy_rate ? heavy : sparse;
  };
  std::vector<std::string> words = r.texts("layer_types");
  if (words.empty() && r.has("compress_ratios")) {
    for (const int rate : r.wholes("compress_ratios"))
      words.push_back(of_rate(rate));
  }
  const bool said = r.has("layer_types") || r.has("compress_ratios");
  for (int l = 0; !said && l < layers; ++l)
    words.push_back(l < 2 || l % 2 == 0 ? heavy : sparse);
  words.resize(std::min(words.size(), std::size_t(layers)));
  return words;
}

std::vector<std::string> feeds_of(const ConfigReader& r, int layers) {
  std::vector<std::string> words = r.texts("mlp_layer_types");
  const int tables = r.whole("num_hash_layers", usual_hash_layers);
  for (int l = 0; !r.has("mlp_layer_types") && l < layers; ++l)
    words.push_back(l < tables ? "hash_moe" : "moe");
  words.resize(std::min(words.size(), std::size_t(layers)));
  return words;
}

// `words` as a list under the key, checked as one.
std::vector<std::string> checked(const ConfigReader& r, const char* key,
                                 const std::vector<std::string>& words, int layers,
                                 const std::vector<std::string>& allowed) {
  const Json list{{key, words}};
  return layer_words(r.with(list), key, layers, allowed);
}

int rate_of(const ConfigReader& r, const char* kind, const char* older, int usual) {
  int rate = usual;
  if (r.has("compress_rates"))
    rate = r.in("compress_rates").whole(kind, usual);
  rate = r.whole(older, rate);
  if (rate < 1)
    r.refuse(concat("compress_rates: ", kind, " is ", rate), "a number of rows from 1");
  return rate;
}

CompressedOptions attention_of(const ConfigReader& r, const ModelConfig& c) {
  CompressedOptions o;
  o.heads = c.heads;
  o.head_dim = c.head_dim;
  o.q_rank = r.positive("q_lora_rank");
  o.o_rank = r.positive("o_lora_rank");
  o.groups = r.positive("o_groups");
  o.window = r.positive("sliding_window");
  if (Index(o.heads) * o.head_dim % o.groups != 0) {
    r.refuse(concat("o_groups is ", o.groups, ", and ", o.heads, " heads of ", o.head_dim,
                    " numbers do not fall into as many groups"));
  }
  return o;
}

CompressedOptions turned(CompressedOptions o, const Turning& t) {
  o.rope_dim = t.dims;
  o.theta = t.theta;
  o.rope = t.rope;
  return o;
}

void read_mixers(const ConfigReader& r, ModelConfig& c) {
  const CompressedOptions usual = attention_of(r, c);
  const Turnings turning = read_turnings(r, c);
  std::vector<std::string> specs;
  for (const std::string& kind : checked(r, "layer_types", kinds_of(r, c.layers), c.layers,
                                         {sliding_attention, sparse, heavy})) {
    CompressedOptions o =
        turned(usual, kind == sliding_attention ? turning.window : turning.compressed);
    if (kind == heavy)
      o.rate = rate_of(r, heavy, "compress_rate_hca", usual_heavy_rate);
    if (kind == sparse) {
      o.rate = rate_of(r, sparse, "compress_rate_csa", usual_sparse_rate);
      o.overlap = true;
      o.topk = r.positive("index_topk");
      o.index_heads = r.positive("index_n_heads");
      o.index_dim = r.positive("index_head_dim");
      if (o.index_dim < o.rope_dim) {
        r.refuse(concat("index_head_dim is ", o.index_dim, ", and the last ", o.rope_dim,
                        " numbers of a head are turned"));
      }
    }
    specs.push_back(o.text());
  }
  set_mixers(c, specs);
}

void read_routing(const ConfigReader& r, ModelConfig& c) {
  const int k = read_experts(r, c, deepseek_experts);
  r.must_be("topk_method", "noaux_tc");
  const std::string score = r.text("scoring_func", "sqrtsoftplus");
  if (score != "sqrtsoftplus" && score != "sigmoid") {
    r.cannot_compute(
        concat("scoring_func is '", score, "' and this program does not have it for this class"),
        "sqrtsoftplus or sigmoid");
  }
  c.moe.router = concat(score == "sigmoid" ? score : "sqrtsoftplus", ":k=", k,
                        ",norm=1,bias=1,scale=", r.real("routed_scaling_factor", 1.5));
  c.moe.shared_width = c.moe.width;
  const double limit = r.real("swiglu_limit", 10);
  if (!(limit > 0))
    r.refuse(concat("swiglu_limit is ", limit, " and must be above 0"));
  c.moe.activation.limit = float(limit);
  const std::vector<std::string> feeds =
      checked(r, "mlp_layer_types", feeds_of(r, c.layers), c.layers, {"hash_moe", "moe"});
  for (int l = 0; l < c.layers; ++l) {
    if (feeds[std::size_t(l)] == "hash_moe")
      c.table_layers.push_back(l);
  }
}

void read(const ConfigReader& r, ModelConfig& c) {
  Json plain = r.json();
  for (const char* key : {"rope_scaling", "rope_parameters", "partial_rotary_factor"})
    plain.erase(key);
  plain["num_key_value_heads"] = 1;
  plain["qk_rope_head_dim"] = 2;  // read by kind of layer below
  read_common(r.with(plain), c);
  c.streams = r.positive("hc_mult");
  c.stream_rounds = std::max(1, r.whole("hc_sinkhorn_iters"));
  c.stream_eps = r.real("hc_eps", 1e-6);
  read_mixers(r, c);
  read_routing(r, c);
}

Json rope_of(const CompressedOptions& o, const ModelConfig& model) {
  ModelConfig c = model;
  c.kv_rank = 0;
  c.head_dim = o.head_dim;
  c.rotary_dim = o.rope_dim;
  c.rope_theta = o.theta;
  c.rope = o.rope;
  Json out = rope_parameters(c);
  out["partial_rotary_factor"] = turned_share(c);
  return out;
}

// The options of each layer, with its kind.
struct LayerKind {
  std::string word;
  CompressedOptions options;
};
std::vector<LayerKind> layer_kinds(const ModelConfig& c) {
  std::vector<LayerKind> out;
  for (int l = 0; l < c.layers; ++l) {
    if (!has_mixer(c, l, "compressed_attention"))
      throw Error(Exit::usage, concat("layer ", l, " has another mixer than compressed_attention"));
    Spec spec(layer_mixers(c.mixer, c.layers)[std::size_t(l)]);
    const CompressedOptions o = CompressedOptions(spec).resolved(c);
    out.push_back({o.rate == 0 ? sliding_attention : o.overlap ? sparse : heavy, o});
  }
  return out;
}

// What all kinds of layer share.
void write_heads(const CompressedOptions& first, Json& j) {
  j["num_attention_heads"] = first.heads;
  j["num_key_value_heads"] = 1;
  j["head_dim"] = first.head_dim;
  j["q_lora_rank"] = first.q_rank;
  j["o_lora_rank"] = first.o_rank;
  j["o_groups"] = first.groups;
  j["sliding_window"] = std::max(1, first.window);
  j["qk_rope_head_dim"] = first.rope_dim;
}

void write_mixers(const ModelConfig& c, Json& j) {
  const std::vector<LayerKind> layers = layer_kinds(c);
  const CompressedOptions& first = layers[0].options;
  CompressedOptions window = first;
  CompressedOptions compressed = first;
  j["compress_rates"] = {{sparse, usual_sparse_rate}, {heavy, usual_heavy_rate}};
  j["index_topk"] = 1;
  j["index_n_heads"] = 1;
  j["index_head_dim"] = first.rope_dim;
  j["layer_types"] = Json::array();
  for (const LayerKind& l : layers) {
    j["layer_types"].push_back(l.word);
    (l.word == sliding_attention ? window : compressed) = l.options;
    if (l.word != sliding_attention)
      j["compress_rates"][l.word] = l.options.rate;
    if (l.word != sparse)
      continue;
    j["index_topk"] = std::max(1, l.options.topk);
    j["index_n_heads"] = std::max(1, l.options.index_heads);
    j["index_head_dim"] = std::max(1, l.options.index_dim);
  }
  write_heads(first, j);
  j["rope_parameters"] = {{"main", rope_of(window, c)}, {"compress", rope_of(compressed, c)}};
  j["partial_rotary_factor"] = j["rope_parameters"]["main"]["partial_rotary_factor"];
  j["rope_theta"] = window.theta;
  j["compress_rope_theta"] = compressed.theta;
  j.erase("rope_scaling");
}

void write(const ModelConfig& c, Json& j) {
  write_mixers(c, j);
  write_experts(c, j, deepseek_experts);
  const RouterFacts router = router_facts(c);
  j["n_shared_experts"] = 1;
  j["num_nextn_predict_layers"] = 0;
  j["norm_topk_prob"] = true;
  j["routed_scaling_factor"] = router.scale;
  j["scoring_func"] = router.score == ScoreFunction::sigmoid ? "sigmoid" : "sqrtsoftplus";
  j["topk_method"] = "noaux_tc";
  j["swiglu_limit"] = double(c.moe.activation.limit);
  j["hc_mult"] = std::max(1, c.streams);
  j["hc_sinkhorn_iters"] = c.stream_rounds;
  j["hc_eps"] = c.stream_eps;
  j["mlp_bias"] = false;
  j["mlp_layer_types"] = Json::array();
  for (int l = 0; l < c.layers; ++l) {
    const bool table = std::ranges::find(c.table_layers, l) != c.table_layers.end();
    j["mlp_layer_types"].push_back(table ? "hash_moe" : "moe");
  }
}

// Of what stands once in a layer.
const std::map<std::string, std::string>& held_names() {
  static const std::map<std::string, std::string> held{
      {"attention_norm", "input_layernorm.weight"},
      {"feed_norm", "post_attention_layernorm.weight"},
      {"moe.router.weight", "mlp.gate.weight"},
      {"moe.shared.gate", "mlp.shared_experts.gate_proj.weight"},
      {"moe.shared.up", "mlp.shared_experts.up_proj.weight"},
      {"moe.shared.down", "mlp.shared_experts.down_proj.weight"},
      {"compressed_attention.q_a", "self_attn.q_a_proj.weight"},
      {"compressed_attention.q_norm", "self_attn.q_a_norm.weight"},
      {"compressed_attention.q_b", "self_attn.q_b_proj.weight"},
      {"compressed_attention.kv", "self_attn.kv_proj.weight"},
      {"compressed_attention.kv_norm", "self_attn.kv_norm.weight"},
      {"compressed_attention.sinks", "self_attn.sinks"},
      {"compressed_attention.o_a", "self_attn.o_a_proj.weight"},
      {"compressed_attention.o_b", "self_attn.o_b_proj.weight"},
      {"compressed_attention.index_q", "self_attn.compressor.indexer.q_b_proj.weight"},
      {"compressed_attention.index_weights",
       "self_attn.compressor.indexer.scorer.weights_proj.weight"}};
  return held;
}

// As the class holds it in memory.
void pack(Names& n) {
  n.embedding = "embed_tokens.weight";
  n.output = "lm_head";
  n.correction_bias = "mlp.gate.e_score_correction_bias";
  n.table = "mlp.gate.tid2eid";
  for (const auto& [ours, theirs] : held_names())
    n.below[ours] = theirs;
  for (const auto& [ours, theirs] :
       {std::pair<std::string, std::string>{"entry_", "self_attn.compressor."},
        {"index_", "self_attn.compressor.indexer."}}) {
    const std::string at = "compressed_attention." + ours;
    n.below[at + "kv"] = theirs + "kv_proj.weight";
    n.below[at + "gate"] = theirs + "gate_proj.weight";
    n.below[at + "place"] = theirs + "position_bias";
    n.below[at + "norm"] = theirs + "kv_norm.weight";
  }
  for (const auto& [ours, theirs] :
       {std::pair<std::string, std::string>{"mixer_streams.", "attn_hc."},
        {"feed_streams.", "ffn_hc."},
        {"streams.", "hc_head.hc_"}}) {
    n.below[ours + "weight"] = theirs + "fn";
    n.below[ours + "base"] = theirs + "base";
    n.below[ours + "scale"] = theirs + "scale";
  }
}

}  // namespace

FamilyRules deepseek_v4_family() {
  const std::string shared = "ffn.shared_experts.";
  return {read,
          write,
          {.prefix = "",
           .embedding = "embed.weight",
           .output = "head",
           .below = {{"attention_norm", "attn_norm.weight"},
                     {"feed_norm", "ffn_norm.weight"},
                     {"moe.router.weight", "ffn.gate.weight"},
                     {"moe.shared.gate", shared + "w1.weight"},
                     {"moe.shared.up", shared + "w3.weight"},
                     {"moe.shared.down", shared + "w2.weight"}},
           .experts = "ffn.experts.",
           .gate = "w1",
           .up = "w3",
           .down = "w2",
           .correction_bias = "ffn.gate.bias",
           .always_corrected = true,
           .table = "ffn.gate.tid2eid",
           // of save_pretrained in transformers 5.24, beside the names above
           .otherwise = {{"embedding", "embed_tokens.weight"},
                         {"compressed_attention.kv_norm", "attn.norm.weight"},
                         {"streams.weight", "hc_head.hc_fn"},
                         {"streams.base", "hc_head.hc_base"},
                         {"streams.scale", "hc_head.hc_scale"}}},
          {.gate_up = "mlp.experts.gate_up_proj",
           .down = "mlp.experts.down_proj",
           .prefix = "model.",
           .change = pack}};
}

}  // namespace moe
