// What a published configuration says that cannot be is refused in its own words: its keys and
// their values, none of the words of --model and --router.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/families.h"

using namespace moe;

namespace {

Json config_of(const std::string& family) {
  return read_json(std::filesystem::path(MOE_SOURCE_DIR) / "tests/model/families" /
                   (family + ".json"))
      .at("config");
}

struct Wrong {
  std::string family, key;
  Json value;
  std::string sentence;
};

std::string refusal(const Wrong& w) {
  Json config = config_of(w.family);
  config[w.key] = w.value;
  try {
    config_from_json(config);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::input);
    return concat(e.what(), "\n", e.hint());
  }
  return "";
}

}  // namespace

TEST_CASE("what cannot be is refused in the words of config.json") {
  const std::vector<Wrong> all = {
      {"mixtral", "num_attention_heads", 3,
       "num_attention_heads is 3 and num_key_value_heads is 2"},
      {"mixtral", "num_key_value_heads", 0, "num_key_value_heads is 0"},
      {"mixtral", "vocab_size", 0, "vocab_size is 0 and must be at least 1"},
      {"mixtral", "head_dim", 0, "head_dim is 0"},
      {"mixtral", "head_dim", 7, "head_dim is 7 and partial_rotary_factor 1"},
      {"mixtral", "max_position_embeddings", 0, "max_position_embeddings is 0"},
      {"mixtral", "num_local_experts", 0, "num_local_experts is 0 and must be at least 1"},
      {"mixtral", "intermediate_size", 0, "intermediate_size is 0 and must be at least 1"},
      {"glm4_moe",
       "rope_parameters",
       {{"partial_rotary_factor", 1.5}},
       "partial_rotary_factor 1.5"},
      {"mixtral", "rope_parameters", {{"rope_theta", 0.0}}, "rope_theta is 0"},
      {"mixtral", "rope_parameters", {{"rope_type", "yarn"}, {"factor", 0.0}}, "factor is 0"},
      {"mixtral", "rope_parameters", {{"rope_type", "linear"}, {"factor", -2.0}}, "factor is -2"},
      {"mixtral",
       "rope_parameters",
       {{"rope_type", "llama3"},
        {"factor", 8.0},
        {"low_freq_factor", 4.0},
        {"high_freq_factor", 1.0}},
       "high_freq_factor is 1 and must be above low_freq_factor"},
      {"phimoe",
       "rope_parameters",
       {{"rope_type", "longrope"}, {"short_factor", {1.0, 2.0}}, {"long_factor", {1.0, 2.0}}},
       "short_factor holds 2 numbers and a head turns in 8 pairs"},
      {"deepseek_v3", "n_group", 3, "n_group is 3 and n_routed_experts is 8"},
      {"deepseek_v3", "topk_group", 9, "topk_group is 9 and n_group is 4"},
      {"deepseek_v3", "topk_group", 1, "fewer experts than the 3 of num_experts_per_tok"},
      {"deepseek_v3", "qk_rope_head_dim", 7, "qk_rope_head_dim is 7"},
      {"mimo_v2_flash", "num_key_value_heads", 4,
       "of which layers with a window have twice as many"},
      {"mellum",
       "layer_types",
       {"full_attention"},
       "layer_types names 1 layers and the model has 3"},
      {"mellum", "mlp_layer_types", {"dense", "sparse", "soft"}, "names 'soft'"},
      {"afmoe", "route_norm", false, "route_norm is false"},
      {"deepseek_v32", "index_head_dim", 4, "index_head_dim is 4 and qk_rope_head_dim 8"},
      {"glm_moe_dsa",
       "indexer_types",
       {"shared", "full", "full"},
       "the indexer of layer 0 is 'shared'"},
      {"longcat_flash", "moe_topk", 30, "moe_topk is 30 and there are 9 experts"},
      {"longcat_flash", "router_bias", true, "router_bias or norm_topk_prob is true"},
      {"gemma4_text", "num_kv_shared_layers", 1, "num_kv_shared_layers is not 0"},
      {"gemma4_text", "hidden_size_per_layer_input", 8, "hidden_size_per_layer_input is not 0"},
      {"deepseek_v2", "n_group", 3, "n_group is 3 and n_routed_experts is 8"},
      {"granitemoe", "logits_scaling", 0.0, "logits_scaling is 0"},
      {"llama4_text", "floor_scale", 0, "floor_scale is 0"},
      {"qwen2_moe", "shared_expert_intermediate_size", 0, "shared_expert_intermediate_size is 0"}};
  for (const Wrong& w : all) {
    const std::string said = refusal(w);
    INFO(w.family << " " << w.key << " " << w.value << ": " << said);
    CHECK(said.find(w.sentence) != said.npos);
    for (const char* ours : {"topk_groups", "kv_heads=", "--router", "groups=", "head_dim="})
      CHECK(said.find(ours) == said.npos);
  }
}

TEST_CASE("types that are known and not computed are refused with what they have") {
  for (const char* type : {"zaya", "doge", "laguna", "muse_spark"}) {
    Json config = config_of("mixtral");
    config["model_type"] = type;
    CHECK_THROWS_WITH(config_from_json(config),
                      Catch::Contains(concat("'", type, "' is not read: it has ")));
  }
}

TEST_CASE("groups of one expert limit nothing where as many are kept as experts are chosen") {
  Json config = config_of("deepseek_v3");  // 8 experts, 3 a token
  config["n_group"] = 8;
  config["topk_group"] = 4;
  const std::string router = config_from_json(config).config.moe.router;
  CHECK(router.find("groups=1") != router.npos);
  config["topk_group"] = 2;
  CHECK_THROWS_WITH(config_from_json(config),
                    Catch::Contains("topk_group is 2 and n_group is 8, groups of 1"));
}

TEST_CASE("a model whose every layer is dense by its steps is read as dense") {
  Json config = config_of("qwen3_moe");
  config["mlp_only_layers"] = Json::array();
  config["decoder_sparse_step"] = 9;
  CHECK(config_from_json(config).config.dense);
}
