// Reading config.json: single values, and what most families say in the same words.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/family/routing_facts.h"

namespace moe {

void ConfigReader::refuse(const std::string& what, const std::string& hint) const {
  throw Error(Exit::input, concat(file_, ": ", what)).hint(hint);
}
bool ConfigReader::has(const char* key) const {
  return json_.contains(key) && !json_[key].is_null();
}
bool ConfigReader::is_null(const char* key) const {
  return json_.contains(key) && json_[key].is_null();
}
const Json& ConfigReader::at(const char* key) const {
  if (!has(key))
    refuse(concat(key, " is missing"));
  return json_[key];
}
int ConfigReader::whole(const char* key, int fallback) const {
  if (!has(key) && fallback >= 0)
    return fallback;
  const Json& v = at(key);
  if (!v.is_number_integer() || v < 0 || v > 1'000'000'000)
    refuse(concat(key, " is ", v.dump(), " and must be a whole number from 0 to 1e9"));
  return v;
}
double ConfigReader::real(const char* key, double fallback) const {
  if (!has(key))
    return fallback;
  if (!json_[key].is_number())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a number"));
  return json_[key];
}
bool ConfigReader::flag(const char* key, bool fallback) const {
  if (!has(key))
    return fallback;
  if (!json_[key].is_boolean())
    refuse(concat(key, " is ", json_[key].dump(), " and must be true or false"));
  return json_[key];
}
std::string ConfigReader::text(const char* key) const {
  if (!at(key).is_string())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a text"));
  return json_[key];
}
std::vector<int> ConfigReader::wholes(const char* key) const {
  std::vector<int> out;
  if (!has(key))
    return out;
  if (!json_[key].is_array())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a list of whole numbers"));
  for (const Json& v : json_[key]) {
    if (!v.is_number_integer() || v < 0 || v > 1'000'000'000)
      refuse(concat(key, " holds ", v.dump(), " and must be a list of whole numbers"));
    out.push_back(v);
  }
  return out;
}
std::vector<double> ConfigReader::reals(const char* key) const {
  std::vector<double> out;
  if (!at(key).is_array())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a list of numbers"));
  for (const Json& v : json_[key]) {
    if (!v.is_number())
      refuse(concat(key, " holds ", v.dump(), " and must be a list of numbers"));
    out.push_back(v);
  }
  return out;
}
std::vector<std::string> ConfigReader::texts(const char* key) const {
  std::vector<std::string> out;
  if (!has(key))
    return out;
  if (!json_[key].is_array())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a list of texts"));
  for (const Json& v : json_[key]) {
    if (!v.is_string())
      refuse(concat(key, " holds ", v.dump(), " and must be a list of texts"));
    out.push_back(v);
  }
  return out;
}
ConfigReader ConfigReader::in(const char* key) const {
  if (!at(key).is_object())
    refuse(concat(key, " is ", json_[key].dump(), " and must be an object"));
  return {json_[key], concat(file_, ", ", key)};
}
void ConfigReader::must_be(const char* key, bool value, bool fallback) const {
  if (flag(key, fallback) != value) {
    refuse(concat(key, has(key) ? " is " : " is absent and so ", value ? "false" : "true",
                  " and this program has no such switch"));
  }
}
void ConfigReader::must_be(const char* key, const std::string& value) const {
  if (has(key) && text(key) != value)
    refuse(concat(key, " is '", text(key), "' and must be ", value));
}

void read_common(const ConfigReader& r, ModelConfig& c, const Defaults& d, const SizeKeys& keys) {
  c.preset = "custom";
  c.vocabulary = r.whole("vocab_size");
  c.hidden = r.whole(keys.hidden);
  c.layers = r.whole(keys.layers);
  c.heads = r.whole(keys.heads);
  c.kv_heads = r.whole(keys.kv_heads, c.heads);
  c.context = r.whole(keys.context, 2048);
  if (c.heads < 1)
    r.refuse(concat(keys.heads, " is 0"));
  if (!r.has("head_dim") && c.hidden % c.heads) {
    r.refuse(concat(keys.hidden, " ", c.hidden, " is not divisible by ", keys.heads, " ", c.heads,
                    " and head_dim is absent"));
  }
  c.head_dim = r.whole("head_dim", c.hidden / c.heads);
  c.norm_eps = r.real("rms_norm_eps", d.eps);
  c.tied = r.flag("tie_word_embeddings", d.tied);
  c.moe.hidden = c.hidden;
  if (r.has("hidden_act") && r.text("hidden_act") != "silu")
    r.refuse(concat("hidden_act is '", r.text("hidden_act"), "' and must be silu"));
  r.must_be("mlp_bias", false, false);
  read_rope(r, c, d);
}

// What Stored can undo. Blocks of another size would be read with the wrong scales where their
// number happens to be the same.
void check_weights(const ConfigReader& r) {
  if (r.has("text_config"))
    check_weights(r.in("text_config"));
  if (!r.has("quantization_config"))
    return;
  const ConfigReader q = r.in("quantization_config");
  const char* hint =
      "it reads fp8 in blocks of 128x128, mxfp4, and float32, bfloat16 or float16 without this key";
  if (!q.has("quant_method")) {  // bitsandbytes once did not write its name
    for (const char* key : {"load_in_4bit", "load_in_8bit"}) {
      if (q.flag(key, false)) {
        q.refuse(concat(key,
                        " is true, so the weights are stored by 'bitsandbytes', which this program "
                        "does not read"),
                 hint);
      }
    }
    q.refuse("quant_method is missing, which says how the weights are stored", hint);
  }
  const std::string method = q.text("quant_method");
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
  c.moe.experts = r.whole(keys.experts);
  c.moe.width = r.whole(keys.width);
  const int k = r.whole(keys.k);
  if (k < 1 || k > c.moe.experts) {
    r.refuse(concat(keys.k, " is ", k, " and ", keys.experts, " ", c.moe.experts),
             "between 1 and the number of experts");
  }
  return k;
}

void write_experts(const ModelConfig& c, Json& j, const ExpertKeys& keys) {
  j[keys.experts] = c.moe.experts;
  j[keys.k] = routing_facts(c).k;
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
