// What a configuration leaves out: every key of every family taken away in turn means what its
// class takes it to mean, or is an error that names it; and the table of those values against what
// the classes said themselves.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/core/error.h"
#include "lib/family/class_defaults.h"
#include "lib/family/families.h"
#include "tests/model/golden_folder.h"
#include "tests/skip.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

Json record_of(std::string_view family) {
  return read_json(fs::path(MOE_SOURCE_DIR) / "tests/model/families" / concat(family, ".json"));
}

// The model that a configuration says, or the sentence that refuses it.
struct Read {
  std::string model, refused;
};
Read read(const Json& config) {
  try {
    return {to_spec(config_from_json(config).config), ""};
  } catch (const Error& e) {
    return {"", e.what()};
  }
}

Json values_of(std::string_view type) {
  for (const ClassDefaults& c : class_defaults()) {
    if (c.type == type)
      return Json::parse(c.values);
  }
  return Json::object();
}

// Where a family's keys stand: at the top, or inside.
const std::map<std::string, std::vector<std::string>> places = {
    {"dbrx", {"", "attn_config", "ffn_config"}},
    {"llama4", {"text_config"}},
    {"qwen3_5_moe", {"text_config"}},
    {"qwen3_vl_moe", {"text_config"}},
    {"qwen3_omni_moe_thinker", {"text_config"}},
    {"qwen3_omni_moe", {"thinker_config.text_config"}},
    {"aria", {"text_config"}},
    {"ernie4_5_vl_moe", {"text_config"}},
    {"kimi_k25", {"text_config"}},
    {"interns1_pro", {"text_config"}}};
const std::map<std::string, std::string> type_of_class = {
    {"kimi_k2", "deepseek_v3"},
    {"llama4", "llama4_text"},
    {"qwen3_5_moe", "qwen3_5_moe_text"},
    {"qwen3_vl_moe", "qwen3_vl_moe_text"},
    {"qwen3_omni_moe_thinker", "qwen3_omni_moe_text"},
    {"qwen3_omni_moe", "qwen3_omni_moe_text"},
    {"aria", "aria_text"},
    {"ernie4_5_vl_moe", "ernie4_5_vl_moe_text"},
    {"kimi_k25", "deepseek_v3"},
    {"interns1_pro", "interns1_pro_text"}};

Json& at(Json& config, const std::string& place) {
  Json* inside = &config;
  for (const std::string& key : place.empty() ? std::vector<std::string>{} : split(place, '.'))
    inside = &inside->at(key);
  return *inside;
}

// Keys that a class has no field for and reads where they are there.
Json derived(const Json& config, const std::string& key) {
  if (key == "head_dim")
    return config.at("hidden_size").get<int>() / config.at("num_attention_heads").get<int>();
  return key == "max_position_embeddings" ? Json(2048) : Json();  // of deepseek, by its authors
}

// What the class has for a key, by its own words: recorded beside the logits.
Json by_class(const Json& record, const Json& table, const std::string& place,
              const std::string& key) {
  const Json inside = place.empty() || !table.contains(place) ? table : table.at(place);
  // derived from other keys, in the record as well
  if (inside.contains(key) && (inside.at(key).is_null() || inside.at(key) == "auto"))
    return inside.at(key);
  const Json defaults = record.value("defaults", Json::object());
  const Json said = place.empty() ? defaults : defaults.value(place, Json::object());
  return said.contains(key) ? said.at(key) : inside.value(key, Json());
}

// The other name under which the file says the same, or "".
std::string other_name(const std::string& type, const Json& config, const std::string& key) {
  for (const ClassDefaults& c : class_defaults()) {
    if (c.type != type || c.other_names.empty())
      continue;
    const Json names = Json::parse(c.other_names);
    for (const auto& [name, meant] : names.items()) {
      if (meant == key && config.contains(name))
        return name;
    }
  }
  return "";
}

// Keys beside rope_parameters say the rules of both kinds of layers of DeepSeek-V4, but how those
// of compressed keys are stretched.
Json unstretched(Json config, const std::string& place) {
  Json& rule = at(config, place)["rope_parameters"]["compress"];
  for (const char* part :
       {"factor", "beta_fast", "beta_slow", "original_max_position_embeddings", "attention_factor"})
    rule.erase(part);
  rule["rope_type"] = "default";
  return config;
}

// 1 where the key may be left out.
int check_key(const std::string& family, const Json& record, const std::string& place,
              const std::string& key) {
  INFO(family << ": " << place << " " << key);
  const auto type = type_of_class.find(family);
  const Json table = values_of(type == type_of_class.end() ? family : type->second);
  const Json inside = place.empty() || !table.contains(place) ? table : table.at(place);
  Json config = record.at("config");
  const Read whole = read(config);
  REQUIRE(whole.refused.empty());
  at(config, place).erase(key);
  const Read without = read(config);
  if (!without.refused.empty()) {
    const bool named = without.refused.find(key) != without.refused.npos;
    CHECK((named || (key == "num_local_experts" &&  // the other name of the same
                     without.refused.find("num_experts") != without.refused.npos)));
    return 0;
  }
  if (!other_name(family, at(config, place), key).empty()) {
    CHECK(without.model == whole.model);  // said twice
    return 1;
  }
  if (key == "rope_parameters" && at(config, place).contains("compress_rope_theta")) {
    CHECK(without.model == read(unstretched(record.at("config"), place)).model);
    return 1;
  }
  const Json other = inside.contains(key) ? Json() : derived(at(config, place), key);
  if (!inside.contains(key) && key != "rope_parameters" && other.is_null()) {
    CHECK(without.model == whole.model);  // nothing that counts
    return 1;
  }
  at(config, place)[key] = other.is_null() ? by_class(record, table, place, key) : other;
  CHECK(without.model == read(config).model);
  return 1;
}

}  // namespace

TEST_CASE("a key of a published configuration that is taken away means what its class has there") {
  int left_out = 0;
  for (const Family& f : families()) {
    if (f.verified != Verified::by_class && f.verified != Verified::remade)
      continue;
    const std::string family(f.name);
    const Json record = record_of(family);
    const auto found = places.find(family);
    for (const std::string& place :
         found == places.end() ? std::vector<std::string>{""} : found->second) {
      Json config = record.at("config");
      const Json keys = at(config, place);
      for (const auto& [key, value] : keys.items()) {
        if (key != "model_type")
          left_out += check_key(family, record, place, key);
      }
    }
  }
  CHECK(left_out > 400);
}

TEST_CASE("values that differ from one class to the next are those of the class") {
  const auto without = [](std::string_view family, const std::vector<std::string>& keys) {
    Json config = record_of(family).at("config");
    Json& inside = config.contains("text_config") ? config["text_config"] : config;
    for (const std::string& key : keys)
      inside.erase(key);
    return config_from_json(config).config;
  };
  CHECK(without("deepseek_v3", {"q_lora_rank"}).q_rank == 1536);
  CHECK(without("deepseek_v3", {"n_shared_experts"}).moe.shared_width == 20);
  CHECK(without("deepseek_v3", {"routed_scaling_factor"}).moe.router.find("scale=2.5") !=
        std::string::npos);
  CHECK(without("deepseek_v3", {"first_k_dense_replace"}).dense);  // the first three of three
  CHECK(without("mixtral", {"head_dim"}).head_dim == 16);
  CHECK(without("ernie4_5_moe", {"num_key_value_heads"}).kv_heads == 4);
  CHECK(without("qwen3", {"head_dim"}).head_dim == 128);
  CHECK(without("mistral", {"sliding_window"}).window == 4096);
  CHECK(without("interns1_pro", {"rope_theta"}).rope_theta == 5e6);
  CHECK(without("interns1_pro", {"norm_topk_prob"}).moe.router.find("norm=1") != std::string::npos);
  CHECK(without("gpt_oss", {"rope_parameters"}).rope.find("yarn:factor=32,original=4096") == 0);
  CHECK(without("gpt_oss", {"rope_parameters"}).rope_theta == 150000);
  Json config = record_of("deepseek_v3").at("config");
  config["q_lora_rank"] = nullptr;  // which is said, and means none
  CHECK(config_from_json(config).config.q_rank == 0);
}

TEST_CASE("keys are read under the other names that a class has for them") {
  Json config = record_of("mixtral").at("config");
  const std::string model = to_spec(config_from_json(config).config);
  config["num_experts"] = config.at("num_local_experts");
  config.erase("num_local_experts");
  CHECK(to_spec(config_from_json(config).config) == model);
  config = record_of("qwen3_moe").at("config");
  const char* there = config.contains("num_experts") ? "num_experts" : "num_local_experts";
  const char* other = config.contains("num_experts") ? "num_local_experts" : "num_experts";
  const std::string qwen = to_spec(config_from_json(config).config);
  config[other] = config.at(there);
  config.erase(there);
  CHECK(to_spec(config_from_json(config).config) == qwen);
}

namespace {

// Ours against theirs, objects key by key; null of ours is derived from other keys in theirs.
void check_value(const Json& ours, const Json& theirs, const std::string& key) {
  INFO(key << " is " << ours << " and the class has " << theirs);
  if (ours.is_object()) {
    for (const auto& [inner, value] : ours.items())
      check_value(value, theirs.value(inner, Json()), concat(key, ".", inner));
    return;
  }
  CHECK((ours.is_null() || ours == theirs));
}

// Under this name in the list, or not there because the class derives it or keeps it elsewhere.
void check_class(const std::string& type, const Json& theirs) {
  // in configurations that are filled in: no window where none is used, the last layer, a number
  const std::set<std::string> derived = {"sliding_window", "moe_layer_end_index", "mamba_dt_rank",
                                         "mamba_d_head", "time_step_rank"};
  const Json ours = values_of(type);
  for (const auto& [key, value] : ours.items()) {
    INFO(type << ": " << key);
    const Json rope = theirs.value("rope_parameters", Json::object());
    if (key == "rope_theta" && (rope.contains("full_attention") || rope.contains("main")))
      continue;  // each kind of layer has its own
    if (type == "bailing_hybrid" && key == "head_dim")
      continue;  // the class puts another one there when it has read it
    if (key == "rope_theta")
      CHECK(rope.at(key) == value);
    else if (key == "partial_rotary_factor")
      CHECK(rope.at(key) == value);
    else if (theirs.contains(key) && !derived.contains(key))
      check_value(value, theirs.at(key), key);
  }
}

}  // namespace

TEST_CASE("the values of the classes are those that the classes were recorded with") {
  int compared = 0;
  for (const Family& f : families()) {
    if (f.verified != Verified::by_class)
      continue;
    const Json record = record_of(f.name);
    if (values_of(f.name).empty() || record.at("defaults").empty())
      continue;
    check_class(std::string(f.name), record.at("defaults"));
    ++compared;
  }
  CHECK(compared >= 18);
}

TEST_CASE("the values of the classes are those of a list that was read from the classes") {
  const fs::path list = test::shared("reference/config-defaults.json");
  if (!fs::exists(list))
    return test::skip("no " + list.string());
  const Json all = read_json(list, {.python_words = true}).at("defaults");
  int compared = 0;
  for (const ClassDefaults& c : class_defaults()) {
    if (!all.contains(std::string(c.type)))
      continue;
    check_class(std::string(c.type), all.at(std::string(c.type)));
    ++compared;
  }
  CHECK(compared >= 25);
}
