// config.json of the families, written and read. Floats are written as floats (typed classes refuse 1 for 1.0) and absent keys are
// read as the class that wrote the file would read them.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/model/families.h"
#include "lib/model/routing_facts.h"

namespace moe {
namespace {

const Family& family(const std::string& name) {
  for (const Family& f : families())
    if (f.name == name) return f;
  std::vector<std::string> names;
  for (const Family& f : families()) names.emplace_back(f.name);
  no_such("model family", name, names);
}

std::vector<int> dense_layers(const ModelConfig& c) {
  std::vector<int> out;
  for (int l = 0; l < c.layers; ++l)
    if (!c.is_moe(l)) out.push_back(l);
  return out;
}

double switch_coefficient(const ModelConfig& c) {
  for (const std::string& spec : c.moe.balance)
    if (Spec s(spec); s.name() == "switch") return s.get("coef", 0.01);
  return 0;
}

// Keys of the families that call their sizes as Qwen does; our own format says all of them.
void qwen_keys(Json& j, const ModelConfig& c, const RoutingFacts& f) {
  j["num_experts"] = c.moe.experts, j["num_experts_per_tok"] = f.k, j["norm_topk_prob"] = f.norm;
  j["moe_intermediate_size"] = c.moe.width, j["intermediate_size"] = c.twin_width();
  j["decoder_sparse_step"] = 1, j["mlp_only_layers"] = dense_layers(c);
}

void family_keys(Json& j, const ModelConfig& c, const std::string& name) {
  const RoutingFacts f = routing_facts(c);
  if (name == "mixtral") {
    j["num_local_experts"] = c.moe.experts, j["num_experts_per_tok"] = f.k, j["intermediate_size"] = c.moe.width;
    j["sliding_window"] = c.window > 0 ? Json(c.window) : Json(nullptr);
    j["router_jitter_noise"] = 0.0;
  } else if (name == "olmoe") {
    j["num_experts"] = c.moe.experts, j["num_experts_per_tok"] = f.k, j["intermediate_size"] = c.moe.width;
    j["norm_topk_prob"] = f.norm, j["clip_qkv"] = nullptr;
  } else if (name == "qwen2_moe" || name == "qwen3_moe" || name == "moe") {
    qwen_keys(j, c, f);
    j["use_sliding_window"] = false;
    if (name == "qwen2_moe") j["shared_expert_intermediate_size"] = c.moe.shared_width, j["qkv_bias"] = false;
  } else if (name == "glm4_moe") {
    j["n_routed_experts"] = c.moe.experts, j["n_shared_experts"] = c.moe.shared_width / c.moe.width, j["num_experts_per_tok"] = f.k;
    j["moe_intermediate_size"] = c.moe.width, j["intermediate_size"] = c.twin_width(), j["first_k_dense_replace"] = c.dense_layers;
    j["norm_topk_prob"] = f.norm, j["routed_scaling_factor"] = f.scale, j["n_group"] = f.groups, j["topk_group"] = f.topk_groups;
    j["use_qk_norm"] = c.qk_norm == QkNorm::head, j["partial_rotary_factor"] = 1.0, j["num_nextn_predict_layers"] = 0;
  } else {
    j["intermediate_size"] = c.twin_width();
    if (name == "mistral") j["sliding_window"] = c.window;
    if (name == "qwen3") j["use_sliding_window"] = false;
  }
}

// The values of a config.json, refused in a sentence where they are not what they must be.
struct Reader {
  const Json& j;
  std::string file;

  [[noreturn]] void refuse(const std::string& what, const std::string& hint = "") const { throw Error(Exit::input, concat(file, ": ", what)).hint(hint); }
  bool has(const char* key) const { return j.contains(key) && !j[key].is_null(); }
  int whole(const char* key, int fallback = -1) const {
    if (!has(key) && fallback >= 0) return fallback;
    if (!has(key)) refuse(concat(key, " is missing"));
    if (!j[key].is_number_integer() || j[key] < 0 || j[key] > 1'000'000'000) refuse(concat(key, " is ", j[key].dump(), " and must be a whole number from 0 to 1e9"));
    return j[key];
  }
  double real(const char* key, double fallback) const {
    if (!has(key)) return fallback;
    if (!j[key].is_number()) refuse(concat(key, " is ", j[key].dump(), " and must be a number"));
    return j[key];
  }
  bool flag(const char* key, bool fallback) const {
    if (!has(key)) return fallback;
    if (!j[key].is_boolean()) refuse(concat(key, " is ", j[key].dump(), " and must be true or false"));
    return j[key];
  }
  std::string text(const char* key) const {
    if (!has(key) || !j[key].is_string()) refuse(concat(key, " is missing"));
    return j[key];
  }
};

// Switches whose other setting this program does not compute.
void refuse_others(const Reader& r, const std::string& name) {
  const auto off = [&](const char* key, bool fallback) {
    if (r.flag(key, fallback)) r.refuse(concat(key, r.has(key) ? " is true" : " is absent and so true", " and this program has no such switch"));
  };
  off("attention_bias", false), off("mlp_bias", false), off("use_sliding_window", false);
  if (name == "qwen2_moe") off("qkv_bias", true);
  if (r.has("hidden_act") && r.text("hidden_act") != "silu") r.refuse(concat("hidden_act is '", r.text("hidden_act"), "' and must be silu"));
  if (r.has("clip_qkv")) r.refuse(concat("clip_qkv is ", r.j["clip_qkv"].dump(), " and this program does not clip"));
  if (r.has("quantization_config")) r.refuse("the weights are quantized, which this program does not read");
  if (const double part = r.real("partial_rotary_factor", name == "glm4_moe" ? 0.5 : 1.0); part != 1) r.refuse(concat("partial_rotary_factor is ", part, " and must be 1"));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!r.has(key)) continue;
    const Json& rope = r.j[key];
    for (const char* type : {"rope_type", "type"})
      if (rope.contains(type) && rope[type] != "default") r.refuse(concat(key, " asks for ", rope[type].dump(), " and this program turns by the plain rule"));
  }
}

void read_common(const Reader& r, ModelConfig& c) {
  c.preset = "custom";
  c.vocabulary = r.whole("vocab_size"), c.hidden = r.whole("hidden_size"), c.layers = r.whole("num_hidden_layers");
  c.heads = r.whole("num_attention_heads"), c.kv_heads = r.whole("num_key_value_heads", c.heads);
  c.context = r.whole("max_position_embeddings", 2048);
  if (c.heads < 1) r.refuse("num_attention_heads is 0");
  if (!r.has("head_dim") && c.hidden % c.heads) r.refuse(concat("hidden_size ", c.hidden, " is not divisible by num_attention_heads ", c.heads, " and head_dim is absent"));
  c.head_dim = r.whole("head_dim", c.hidden / c.heads);
  c.norm_eps = r.real("rms_norm_eps", 1e-6);
  const bool nested = !r.has("rope_theta") && r.has("rope_parameters");
  c.rope_theta = nested ? Reader{r.j["rope_parameters"], r.file + ", rope_parameters"}.real("rope_theta", 10000) : r.real("rope_theta", 10000);
  c.tied = r.flag("tie_word_embeddings", false);
  c.moe.hidden = c.hidden;
}

void read_moe(const Reader& r, const std::string& name, ModelConfig& c) {
  const bool glm = name == "glm4_moe";
  c.moe.experts = r.whole(name == "mixtral" || (!glm && !r.has("num_experts") && r.has("num_local_experts")) ? "num_local_experts" : glm ? "n_routed_experts" : "num_experts");
  const int k = r.whole("num_experts_per_tok");
  if (k < 1 || k > c.moe.experts) r.refuse(concat("num_experts_per_tok is ", k, " and num_experts ", c.moe.experts), "between 1 and the number of experts");
  c.moe.width = r.whole(name == "mixtral" || name == "olmoe" ? "intermediate_size" : "moe_intermediate_size");
  const bool norm = name == "mixtral" || r.flag("norm_topk_prob", glm);
  c.moe.router = concat("softmax:k=", k, ",norm=", norm);
  if (name == "qwen2_moe" || name == "qwen3_moe") {
    const std::vector<int> dense = r.has("mlp_only_layers") ? r.j["mlp_only_layers"].get<std::vector<int>>() : std::vector<int>{};
    c.dense_width = r.whole("intermediate_size"), c.dense_layers = int(dense.size()), c.moe_every = r.whole("decoder_sparse_step", 1);
    for (std::size_t i = 0; i < dense.size(); ++i)
      if (dense[i] != int(i)) r.refuse(concat("mlp_only_layers has layer ", dense[i], " and this program has dense layers only in front"));
    if (c.moe_every != 1 && c.dense_layers > 0) r.refuse("decoder_sparse_step and mlp_only_layers together are not read");
    if (name == "qwen2_moe") c.moe.shared_width = r.whole("shared_expert_intermediate_size"), c.moe.shared_gate = true;
  }
  if (!glm) return;
  const int groups = r.whole("n_group", 1);
  c.moe.router = concat("sigmoid:k=", k, ",norm=", norm, ",bias=1,scale=", r.real("routed_scaling_factor", 1.0));
  if (groups > 1) c.moe.router += concat(",groups=", groups, ",topk_groups=", r.whole("topk_group", 1), ",group_score=top2_sum");
  c.dense_layers = r.whole("first_k_dense_replace", 1), c.dense_width = r.whole("intermediate_size");
  c.moe.shared_width = c.moe.width * r.whole("n_shared_experts", 1);
}

ModelConfig foreign(const Reader& r, const std::string& name) {
  ModelConfig c;
  read_common(r, c);
  refuse_others(r, name);
  if (name == "olmoe") c.qk_norm = QkNorm::full;
  if (name == "qwen3" || name == "qwen3_moe" || (name == "glm4_moe" && r.flag("use_qk_norm", false))) c.qk_norm = QkNorm::head;
  if (name == "mixtral" && r.has("sliding_window")) c.window = r.whole("sliding_window");
  if (name == "mistral") c.window = r.j.contains("sliding_window") && !r.has("sliding_window") ? 0 : r.whole("sliding_window", 4096);
  c.dense = name == "llama" || name == "mistral" || name == "qwen3";
  if (c.dense) c.dense_width = r.whole("intermediate_size");
  else read_moe(r, name, c);
  return c;
}

}  // namespace

Json config_json(const ModelConfig& c, const std::string& name, const TokenizerFacts& facts) {
  const auto id = [](int v) { return v < 0 ? Json(nullptr) : Json(v); };
  Json j{{"architectures", {family(name).architecture}}, {"model_type", name}, {"torch_dtype", "float32"}, {"vocab_size", c.vocabulary}, {"hidden_size", c.hidden},
         {"num_hidden_layers", c.layers}, {"num_attention_heads", c.heads}, {"num_key_value_heads", c.kv_heads}, {"head_dim", c.head_dim}, {"hidden_act", "silu"},
         {"rms_norm_eps", c.norm_eps}, {"rope_theta", c.rope_theta}, {"max_position_embeddings", c.context}, {"tie_word_embeddings", c.tied},
         {"initializer_range", 0.02}, {"attention_dropout", 0.0}, {"attention_bias", false}, {"use_cache", true},
         {"bos_token_id", id(facts.bos)}, {"eos_token_id", id(facts.eos)}, {"pad_token_id", id(facts.pad)}};
  family_keys(j, c, name);
  if (name == "moe") j["hidden_act"] = name_of(c.moe.activation);
  if (c.moe_layers() > 0) j["router_aux_loss_coef"] = switch_coefficient(c), j["output_router_logits"] = false;
  j["moe_training"] = {{"spec", to_spec(c)}};
  return j;
}

Published config_from_json(const Json& j, const std::string& file) {
  const Reader r{j, file};
  if (!j.is_object()) r.refuse("this is not an object");
  Published out;
  out.family = r.text("model_type");
  if (std::ranges::none_of(families(), [&](const Family& f) { return f.name == out.family; })) {
    std::vector<std::string> names;
    for (const Family& f : families()) names.emplace_back(f.name);
    r.refuse(concat("model_type '", out.family, "' is none that this program reads"), "it reads " + join(names));
  }
  const auto id = [&](const char* key) { return r.has(key) && j[key].is_number_integer() ? r.whole(key) : -1; };
  out.tokenizer = {id("bos_token_id"), id("eos_token_id"), id("pad_token_id")};
  try {
    if (!r.has("moe_training")) {
      if (out.family == "moe") r.refuse("moe_training is missing, which says what the model is");
      out.config = resolved(foreign(r, out.family));
      return out;
    }
    out.config = model_config(Reader{j["moe_training"], file + ", moe_training"}.text("spec"));
  } catch (const Error& e) {
    if (e.code() == Exit::input) throw;
    r.refuse(e.what(), e.hint());
  }
  const Json expected = config_json(out.config, out.family, out.tokenizer);  // nobody changed a size behind the spec's back
  for (const auto& [key, value] : expected.items())
    if (key != "moe_training" && key != "torch_dtype" && key != "architectures" && key != "use_cache" && r.has(key.c_str()) && j[key] != value)
      r.refuse(concat(key, " is ", j[key].dump(), " and moe_training says ", value.dump()), "change both, or remove moe_training");
  return out;
}

}  // namespace moe
