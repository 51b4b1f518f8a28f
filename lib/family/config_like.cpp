#include "lib/family/config_like.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

constexpr std::array token_ids = {"bos_token_id", "eos_token_id", "pad_token_id"};
constexpr std::array beside_the_sizes = {"bos_token_id", "eos_token_id", "pad_token_id",
                                         "torch_dtype", "dtype"};

std::string type_name(DType t) {
  switch (t) {
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
    default:
      return "float32";
  }
}

// What the class's file says of a model, without what says nothing of it.
Json described(const ModelConfig& c, const std::string& family) {
  Json out = config_json(c, family);
  out.erase("moe_training");
  out.erase("torch_dtype");
  for (const char* key : token_ids)
    out.erase(key);
  return out;
}

// Of the keys that `before` and `after` say, those in which they differ, objects key by key.
void apply(Json& to, const Json& before, const Json& after) {
  for (const auto& [key, value] : after.items()) {
    const auto was = before.find(key);
    if (was != before.end() && *was == value)
      continue;
    const bool objects = was != before.end() && was->is_object() && value.is_object() &&
                         to.contains(key) && to[key].is_object();
    if (objects)
      apply(to[key], *was, value);
    else
      to[key] = value;
  }
  for (const auto& [key, value] : before.items()) {
    if (!after.contains(key))
      to.erase(key);
  }
}

void set_ids(Json& to, const TokenizerFacts& ids) {
  const std::array<int, 3> values = {ids.bos, ids.eos, ids.pad};
  for (std::size_t i = 0; i < token_ids.size(); ++i)
    to[token_ids[i]] = values[i] < 0 ? Json(nullptr) : Json(values[i]);
}

// Classes of version 5 say dtype, those before torch_dtype.
void set_type(Json& to, DType weights) {
  if (to.contains("dtype"))
    to["dtype"] = type_name(weights);
  if (to.contains("torch_dtype") || !to.contains("dtype"))
    to["torch_dtype"] = type_name(weights);
}

// The part of the old file that describes what is written: of a model that sees images too, which
// is never written whole, that of its text, with what stands beside it.
Json part_of(const Json& old, const std::string& from, const std::string& to) {
  if (from == to || !old.contains("text_config") || !old["text_config"].is_object())
    return old;
  Json out = old["text_config"];
  for (const char* key : beside_the_sizes) {
    if (old.contains(key) && !out.contains(key))
      out[key] = old[key];
  }
  return out;
}

bool reads_back(const Json& j, const ConfigRequest& r) {
  try {
    const Published back = config_from_json(j);
    if (back.family != r.family)
      return false;
    return j.contains("moe_training") ? to_spec(back.config) == to_spec(r.model)
                                      : same_model(back.config, r.model);
  } catch (const Error&) {
    return false;
  }
}

std::string lost_keys(const Json& old, const Json& now) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : old.items()) {
    if (!now.contains(key))
      keys.push_back(key);
  }
  return join(keys);
}

// The first of the candidates that is read back as the model.
ConfigLike first_that_reads(const Json& start, const Json& patched, const ConfigRequest& r,
                            bool wants_spec) {
  const Json spec = {{"spec", to_spec(r.model)}};
  if (!wants_spec && reads_back(patched, r))
    return {patched, ""};
  ConfigLike out{patched, ""};
  out.json["moe_training"] = spec;
  if (reads_back(out.json, r))
    return out;
  const Json own = described(r.model, r.family);
  out.json.update(own);
  if (reads_back(out.json, r))
    return out;
  out.json = own;
  out.json["moe_training"] = spec;
  for (const char* key : beside_the_sizes) {
    if (patched.contains(key))
      out.json[key] = patched[key];
  }
  if (const std::string lost = lost_keys(start, out.json); !lost.empty()) {
    out.note = concat(
        "config.json was written anew, since with its other keys it would describe "
        "another model; it no longer has ",
        lost);
  }
  return out;
}

}  // namespace

ConfigLike config_like(const Json& old, const ConfigRequest& r) {
  const Published was = config_from_json(old);
  const bool writes = rules_of(was.family).write != nullptr;
  const Json start = part_of(old, was.family, r.family);
  Json patched = start;
  const bool had_spec = patched.erase("moe_training") > 0;
  apply(patched, writes ? described(was.config, was.family) : Json::object(),
        described(r.model, r.family));
  if (was.family != r.family)
    patched.erase("auto_map");  // of the other class
  std::string note;
  if (patched.erase("quantization_config") > 0) {
    note = r.few_bits ? "the weights were quantised; they were decoded and rounded again, and "
                        "quantization_config speaks of the new ones"
                      : concat("the weights were quantised; they stand as ", type_name(r.weights),
                               " now, and quantization_config is gone from config.json");
  }
  if (r.ids)
    set_ids(patched, *r.ids);
  set_type(patched, r.weights);
  ConfigLike out = first_that_reads(start, patched, r, had_spec || r.spec);
  if (out.note.empty())
    out.note = note;
  return out;
}

}  // namespace moe
