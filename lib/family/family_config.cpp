// config.json of the families, written and read. Floats are written as floats (typed classes refuse
// 1 for 1.0) and absent keys are read as the class that wrote the file would read them.
#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/family/class_defaults.h"
#include "lib/family/families.h"
#include "lib/family/family.h"

namespace moe {
namespace {

const Family& family(const std::string& name) {
  for (const Family& f : families()) {
    if (f.name == name)
      return f;
  }
  std::vector<std::string> names;
  for (const Family& f : families())
    names.emplace_back(f.name);
  no_such("model family", name, names);
}

double switch_coefficient(const ModelConfig& c) {
  for (const std::string& spec : c.moe.balance) {
    if (Spec s(spec); s.name() == "switch")
      return s.get("coef", 0.01);
  }
  return 0;
}

ModelConfig foreign(const Json& j, const std::string& file, const std::string& name) {
  ModelConfig c;
  const Json filled = with_class_defaults(name, j);
  const ConfigReader r(filled, file);
  check_weights(r);
  rules_of(name).read(r, c);
  return c;
}

// Sizes and switches under the keys that most classes read.
Json common_json(const ModelConfig& c, const std::string& name, const TokenizerFacts& facts) {
  const auto id = [](int v) {
    return v < 0 ? Json(nullptr) : Json(v);
  };
  return {{"architectures", {family(name).architecture}},
          {"model_type", name},
          {"torch_dtype", "float32"},
          {"vocab_size", c.vocabulary},
          {"hidden_size", c.hidden},
          {"num_hidden_layers", c.layers},
          {"num_attention_heads", c.heads},
          {"num_key_value_heads", c.kv_heads},
          {"head_dim", c.head_dim},
          {"hidden_act", "silu"},
          {"rms_norm_eps", c.norm_eps},
          {"rope_theta", c.rope_theta},
          {"max_position_embeddings", c.context},
          {"tie_word_embeddings", c.tied},
          {"initializer_range", 0.02},
          {"attention_dropout", 0.0},
          {"attention_bias", false},
          {"use_cache", true},
          {"bos_token_id", id(facts.bos)},
          {"eos_token_id", id(facts.eos)},
          {"pad_token_id", id(facts.pad)}};
}

}  // namespace

Json config_json(const ModelConfig& c, const std::string& name, const TokenizerFacts& facts) {
  Json j = common_json(c, name, facts);
  write_rope(c, j);
  rules_of(name).write(c, j);
  if (c.moe_layers() > 0) {
    j["router_aux_loss_coef"] = switch_coefficient(c);
    j["output_router_logits"] = false;
  }
  j["moe_training"] = {{"spec", to_spec(c)}};
  return j;
}

namespace {

// Published types that are known and not computed, and what they have.
std::string unread_parts(const std::string& type) {
  constexpr std::pair<std::string_view, std::string_view> own[] = {
      {"zaya", "a router over an averaged state and compressed convolutional attention"},
      {"doge", "experts that are single rows retrieved from a table"},
      {"ernie4_5_moe_vl",
       "ERNIE 4.5 VL in the keys and tensor names of Baidu's own code, which nothing here was held "
       "to; what transformers writes of it, model_type ernie4_5_vl_moe, is read"}};
  constexpr std::string_view others[] = {
      "cohere2_moe",   "laguna",   "beam",       "granitemoe_swa", "lara_mini",      "axk2",
      "step3p7",       "hy_v4",    "glm5_next",  "qwen4_exp",      "mistral_large4", "inkling",
      "minimax_m3_vl", "inkling2", "muse_spark", "dots3_note"};
  for (const auto& [name, parts] : own) {
    if (name == type)
      return std::string(parts);
  }
  return std::ranges::find(others, type) == std::end(others)
             ? ""
             : "parts that no model of this program has (among such are gated residuals, several "
               "residual streams, n-gram embeddings)";
}

void refuse_unknown(const ConfigReader& r, const std::string& family) {
  if (is_family(family))
    return;
  std::vector<std::string> names;
  for (const Family& f : families())
    names.emplace_back(f.name);
  const std::string parts = unread_parts(family);
  r.refuse(parts.empty() ? concat("model_type '", family, "' is none that this program reads")
                         : concat("model_type '", family, "' is not read: it has ", parts),
           "it reads " + join(names));
}

// Keys that say nothing of what is computed.
bool is_beside(const std::string& key) {
  constexpr std::array beside = {
      "moe_training",      "torch_dtype",          "architectures",       "use_cache",
      "initializer_range", "attention_dropout",    "bos_token_id",        "eos_token_id",
      "pad_token_id",      "output_router_logits", "router_aux_loss_coef"};
  return std::ranges::find(beside, key) != beside.end();
}

// The same keys in the words of the class that wrote the file; nothing where it cannot be read
// without moe_training.
Json as_the_class_reads(const ConfigReader& r, const Published& read) {
  try {
    return config_json(resolved(foreign(r.json(), r.file(), read.family)), read.family);
  } catch (const Error&) {
    return Json::object();
  }
}

// Keys of `said`, of a part of a file that may be whole or stand below such a key; `as_read`: the
// same part of as_the_class_reads(), made where it is needed.
void refuse_changed(const ConfigReader& r, const Json& said,
                    const std::function<const Json&()>& as_read) {
  for (const auto& [key, value] : said.items()) {
    if (is_beside(key) || !r.has(key.c_str()) || r.json()[key] == value)
      continue;
    if (key.ends_with("_config") && value.is_object() && r.json()[key].is_object()) {
      const auto below = [&, name = key]() -> const Json& {
        static const Json nothing = Json::object();
        const Json& all = as_read();
        return all.contains(name) ? all[name] : nothing;
      };
      refuse_changed(r.in(key.c_str()), value, below);
      continue;
    }
    const Json& read = as_read();
    if (read.contains(key) && read[key] == value)
      continue;
    r.refuse(concat(key, " is ", r.json()[key].dump(), " and moe_training says ", value.dump()),
             "change both, or remove moe_training");
  }
}

// Nobody may change a size behind the spec's back. A key may be said in other words, as in a file
// that was kept.
void refuse_changed(const ConfigReader& r, const Published& read) {
  std::optional<Json> as_read;
  refuse_changed(r, config_json(read.config, read.family, read.tokenizer), [&]() -> const Json& {
    if (!as_read)
      as_read = as_the_class_reads(r, read);
    return *as_read;
  });
}

}  // namespace

Published config_from_json(const Json& j, const std::string& file) {
  const ConfigReader r(j, file);
  if (!j.is_object())
    r.refuse("this is not an object");
  Published out;
  out.family = r.text("model_type");
  refuse_unknown(r, out.family);
  const auto id = [&](const char* key) {
    return r.has(key) && j[key].is_number_integer() ? r.whole(key) : -1;
  };
  out.tokenizer = {id("bos_token_id"), id("eos_token_id"), id("pad_token_id")};
  try {
    if (!r.has("moe_training")) {
      if (out.family == "moe")
        r.refuse("moe_training is missing, which says what the model is");
      out.config = resolved(foreign(j, file, out.family));
      return out;
    }
    out.config = model_config(r.in("moe_training").text("spec"));
  } catch (const Error& e) {
    if (e.code() == Exit::input)
      throw;
    const bool ours = r.has("moe_training");
    r.refuse(concat(ours ? "" : "it describes a model that this program does not make: ", e.what()),
             ours ? e.hint() : "");
  }
  refuse_changed(r, out);
  return out;
}

}  // namespace moe
