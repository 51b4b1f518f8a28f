// What most families say in the same words of their config.json.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"
#include "lib/model/layer_list.h"
#include "lib/model/mixer_type.h"
#include "lib/router/facts.h"

namespace moe {
namespace {

void read_heads(const ConfigReader& r, ModelConfig& c, const SizeKeys& keys) {
  c.heads = r.positive(keys.heads);
  c.kv_heads = r.whole(keys.kv_heads, c.heads);
  if (c.kv_heads < 1 || c.heads % c.kv_heads != 0) {
    r.refuse(concat(keys.heads, " is ", c.heads, " and ", keys.kv_heads, " is ", c.kv_heads,
                    ", and as many query heads share each key head"),
             concat("a divisor of ", c.heads));
  }
  if (!r.has("head_dim") && c.hidden % c.heads && !r.has("kv_lora_rank")) {
    r.refuse(concat(keys.hidden, " ", c.hidden, " is not divisible by ", keys.heads, " ", c.heads,
                    " and head_dim is absent"));
  }
  c.head_dim = r.whole("head_dim", c.hidden / c.heads);
  if (c.head_dim < 1)
    r.refuse("head_dim is 0");
}

constexpr const char* stored_formats =
    "it reads fp8 in blocks of 128x128, mxfp4, whole numbers of 8 and 4 bits as compressed-tensors "
    "stores them, and float32, bfloat16 or float16 without this key";

// Of a quantisation that does not say its name: MLX never does, bitsandbytes once did not.
[[noreturn]] void refuse_unnamed(const ConfigReader& q) {
  for (const char* key : {"load_in_4bit", "load_in_8bit"}) {
    if (q.flag(key, false)) {
      q.refuse(concat(key,
                      " is true, so the weights are stored by 'bitsandbytes', which this program "
                      "does not read"),
               stored_formats);
    }
  }
  if (q.has("group_size") && q.has("bits")) {
    q.refuse(
        concat("group_size is ", q.at("group_size").dump(), " and bits is ", q.at("bits").dump(),
               ", so the weights are stored by 'MLX', which this program does not read"),
        stored_formats);
  }
  q.refuse("quant_method is missing, which says how the weights are stored", stored_formats);
}

// One group of tensors that compressed-tensors stores alike. Which are which, and how many numbers
// share a scale, the tensors themselves say.
void check_group(const ConfigReader& weights) {
  const int bits = weights.whole("num_bits");
  const std::string type = weights.text("type");
  const bool known = (type == "int" && (bits == 4 || bits == 8)) || (type == "float" && bits == 4);
  if (!known)
    weights.refuse(concat("num_bits is ", bits, " and type is '", type, "'"), stored_formats);
  weights.must_be("symmetric", true, true);
  if (weights.has("actorder") && !weights.is_null("actorder"))
    weights.refuse("actorder is set, an order of columns that is not read", stored_formats);
}

void check_compressed(const ConfigReader& q) {
  if (q.has("quantization_status") && q.text("quantization_status") != "compressed")
    q.refuse(concat("quantization_status is '", q.text("quantization_status"), "'"),
             stored_formats);
  const ConfigReader groups = q.in("config_groups");
  for (const auto& [name, group] : groups.json().items())
    check_group(groups.in(name.c_str()).in("weights"));
}

}  // namespace

void read_common(const ConfigReader& r, ModelConfig& c, const SizeKeys& keys) {
  c.preset = "custom";
  c.vocabulary = r.positive("vocab_size");
  c.hidden = r.positive(keys.hidden);
  c.layers = r.layers(keys.layers);
  c.context = r.whole(keys.context, 2048);
  if (c.context < 1)
    r.refuse(concat(keys.context, " is 0"));
  read_heads(r, c, keys);
  c.norm_eps = r.real("rms_norm_eps", 1e-6);
  c.tied = r.flag("tie_word_embeddings", false);
  c.moe.hidden = c.hidden;
  r.must_be("hidden_act", "silu");
  r.must_be("mlp_bias", false, false);
  read_rope(r, c);
}

Json reworded(const ConfigReader& r, const OtherKeys& keys) {
  Json out = r.json();
  for (const auto& [usual, theirs] : keys) {
    if (out.contains(theirs))
      out[usual] = out[theirs];
  }
  return out;
}

void set_no_attention(Json& j, const ConfigReader& r) {
  j["num_attention_heads"] = 1;
  j["num_key_value_heads"] = 1;
  j["head_dim"] = r.positive("hidden_size");
}

std::vector<std::string> layer_words(const ConfigReader& r, const char* key, int layers,
                                     const std::vector<std::string>& words) {
  std::vector<std::string> out = r.texts(key);
  if (int(out.size()) != layers)
    r.refuse(concat(key, " has ", out.size(), " entries for ", layers, " layers"));
  for (const std::string& word : out) {
    if (std::ranges::find(words, word) == words.end())
      r.refuse(concat(key, " has '", word, "'"), "one of " + join(words));
  }
  return out;
}

void set_mixers(ModelConfig& c, const std::vector<std::string>& spec) {
  std::vector<std::string> whole = spec;
  for (std::string& s : whole) {
    if (s != no_part)
      s = resolved_mixer(s);
  }
  c.mixer = layer_list(std::move(whole));
}
void set_feeds(ModelConfig& c, const std::vector<std::string>& entry) {
  c.feed = layer_list(entry);
  c.dense = std::ranges::find(entry, "moe") == entry.end();
}

bool has_mixer(const ModelConfig& c, int layer, const std::string& name) {
  const std::string spec = layer_mixers(c.mixer, c.layers)[std::size_t(layer)];
  return spec == name || spec.starts_with(name + ":");
}

Spec mixer_options(const ModelConfig& c, const std::string& name) {
  for (const std::string& spec : layer_mixers(c.mixer, c.layers)) {
    if (spec == name || spec.starts_with(name + ":"))
      return Spec(spec);
  }
  return Spec(name);
}

// What Stored can undo. Blocks of another size would be read with the wrong scales where their
// number happens to be the same.
void check_weights(const ConfigReader& r) {
  for (const char* part : {"text_config", "thinker_config"}) {
    if (r.has(part))
      check_weights(r.in(part));
  }
  if (r.has("quantization") && r.at("quantization").contains("bits"))
    refuse_unnamed(r.in("quantization"));
  if (!r.has("quantization_config"))
    return;
  const ConfigReader q = r.in("quantization_config");
  const char* hint = stored_formats;
  if (!q.has("quant_method"))
    refuse_unnamed(q);
  const std::string method = q.text("quant_method");
  if (method == "compressed-tensors")
    return check_compressed(q);
  if (method != "fp8" && method != "mxfp4")
    q.refuse(concat("quant_method is '", method, "', which this program does not read"), hint);
  if (method != "fp8")
    return;
  if (q.is_null("weight_block_size")) {
    q.refuse(
        "weight_block_size is null, one scale for a whole tensor, which this program does not read",
        hint);
  }
  if (q.has("weight_block_size") && q.wholes("weight_block_size") != std::vector<int>{128, 128}) {
    q.refuse(
        concat("weight_block_size is ", q.at("weight_block_size").dump(), " and must be [128,128]"),
        hint);
  }
}

int read_experts(const ConfigReader& r, ModelConfig& c, const ExpertKeys& keys) {
  c.moe.experts = r.positive(keys.experts);
  c.moe.width = r.positive(keys.width);
  const int k = r.whole(keys.k);
  if (k < 1 || k > c.moe.experts) {
    r.refuse(concat(keys.k, " is ", k, " and ", keys.experts, " is ", c.moe.experts),
             "between 1 and the number of experts");
  }
  return k;
}

void read_optional_window(const ConfigReader& r, ModelConfig& c) {
  if (!r.flag("use_sliding_window", false))
    return;
  r.cannot_compute("use_sliding_window is true and this program has no such switch");
  c.window = r.whole("sliding_window", 0);
}

ConfigReader text_part(const ConfigReader& whole) {
  return whole.only_sizes() && !whole.has("text_config") ? whole : whole.in("text_config");
}

Json text_of_whole(const ConfigReader& whole, bool tied) {
  Json out = text_part(whole).json();
  out["tie_word_embeddings"] = whole.flag("tie_word_embeddings", tied);
  return out;
}

void write_inside(Json& j, const char* text_type) {
  Json text = std::exchange(j, Json::object());
  for (const char* key : {"architectures", "model_type", "torch_dtype", "tie_word_embeddings"})
    j[key] = text[key];
  for (const char* key :
       {"architectures", "torch_dtype", "bos_token_id", "eos_token_id", "pad_token_id"})
    text.erase(key);
  text["model_type"] = text_type;
  j["text_config"] = std::move(text);
}

RouterFacts router_facts(const ModelConfig& c) {
  return router_facts(c.moe.router, c.moe.experts);
}
bool norm_topk(const ModelConfig& c) {
  const RouterFacts f = router_facts(c);
  return f.normalised || !f.norm_is_option;
}

void write_experts(const ModelConfig& c, Json& j, const ExpertKeys& keys) {
  j[keys.experts] = c.moe.experts;
  j[keys.k] = router_facts(c).k;
  j[keys.width] = c.moe.width;
}

std::vector<int> dense_layers(const ModelConfig& c) {
  std::vector<int> out;
  for (int l = 0; l < c.layers; ++l) {
    if (!c.is_moe(l))
      out.push_back(l);
  }
  return out;
}

void set_moe_layers(ModelConfig& c, const std::function<bool(int)>& is_moe) {
  int first = 0;
  while (first < c.layers && !is_moe(first))
    ++first;
  c.dense_layers = first;
  c.moe_every = 1;
  c.dense = first == c.layers;
  for (int l = first; l < c.layers; ++l) {
    if (!is_moe(l))
      c.dense_at.push_back(l);
  }
}

}  // namespace moe
