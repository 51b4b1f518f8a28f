// Sizes that a config.json leaves out are those of its class, for types that are only planned too.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/family/class_defaults.h"
#include "lib/plan/cost.h"
#include "lib/plan/describe.h"

using namespace moe;

namespace {

Json values_of(const std::string& type) {
  for (const ClassDefaults& c : class_defaults()) {
    if (c.type == type)
      return Json::parse(c.values);
  }
  return Json::object();
}

Count total(const Json& config) {
  return parameters(plan::describe(config, "config.json", "x")).total;
}

// The keys that no file may leave out.
const std::map<std::string, Json> least = {
    {"jamba",
     {{"vocab_size", 1000},
      {"hidden_size", 768},
      {"num_hidden_layers", 8},
      {"num_attention_heads", 32},
      {"num_experts", 16},
      {"num_experts_per_tok", 2}}},
    {"minimax",
     {{"vocab_size", 1000},
      {"hidden_size", 768},
      {"num_hidden_layers", 8},
      {"num_attention_heads", 32},
      {"num_local_experts", 8},
      {"num_experts_per_tok", 2}}},
    {"nemotron_h",
     {{"vocab_size", 1000},
      {"hidden_size", 768},
      {"num_hidden_layers", 4},
      {"hybrid_override_pattern", "ME*-"},
      {"num_attention_heads", 32},
      {"n_routed_experts", 8},
      {"num_experts_per_tok", 2}}},
    {"switch_transformers",
     {{"vocab_size", 1000},
      {"d_model", 768},
      {"num_layers", 12},
      {"num_heads", 12},
      {"num_experts", 8}}},
    {"t5", {{"vocab_size", 1000}, {"d_model", 512}, {"num_layers", 6}, {"num_heads", 8}}},
    {"nllb-moe",
     {{"vocab_size", 1000},
      {"d_model", 1024},
      {"encoder_layers", 12},
      {"decoder_layers", 12},
      {"encoder_attention_heads", 16},
      {"decoder_attention_heads", 16},
      {"num_experts", 128}}},
    {"bert",
     {{"vocab_size", 1000},
      {"hidden_size", 768},
      {"num_hidden_layers", 12},
      {"num_attention_heads", 12}}}};

}  // namespace

TEST_CASE("sizes that are planned are those of the class where a file leaves them out") {
  for (const auto& [type, keys] : least) {
    Json config = keys;
    config["model_type"] = type;
    const Json values = values_of(type);
    Json said = config;
    said.update(values);
    const Count all = total(said);
    for (const auto& [key, value] : values.items()) {
      INFO(type << ": " << key);
      Json without = said;
      without.erase(key);
      CHECK(total(without) == all);
    }
    CHECK(total(config) == all);
  }
}

TEST_CASE("some of those sizes, counted by hand") {
  const auto with = [](const char* type, const char* key, const Json& value) {
    Json config = least.at(type);
    config["model_type"] = type;
    config[key] = value;
    return config;
  };
  // 12 layers, 2 matrices: the class has 3072 for a feed-forward
  CHECK(total(with("bert", "intermediate_size", 3073)) - total(with("bert", "vocab_size", 1000)) ==
        12 * (2 * 768 + 1));
  // every second layer has full attention, 8 key heads of 768 / 32
  CHECK(total(with("minimax", "num_key_value_heads", 8)) == total(with("minimax", "head_dim", 24)));
  // ten decoder layers fewer than the class's 12 are another model
  CHECK(total(with("switch_transformers", "num_decoder_layers", 12)) ==
        total(with("switch_transformers", "d_kv", 64)));
  CHECK(total(with("switch_transformers", "num_decoder_layers", 2)) <
        total(with("switch_transformers", "d_kv", 64)));
}
