// Encoders of pictures and sounds beside a language model, counted from its configuration.
#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include "lib/plan/published.h"
#include "lib/plan/towers.h"

using namespace moe;

TEST_CASE("encoders are counted by hand and by their tensors") {
  const Json config{{"model_type", "kimi_k25"},
                    {"projection_hidden_size", 8},
                    {"text_config", {{"hidden_size", 6}}},
                    {"vision_config",
                     {{"hidden_size", 8},
                      {"intermediate_size", 10},
                      {"num_attention_heads", 2},
                      {"num_hidden_layers", 3},
                      {"patch_size", 2},
                      {"pos_emb_height", 4},
                      {"pos_emb_width", 4}}}};
  const std::vector<TowerPart> parts = plan::towers_of(config);
  REQUIRE(parts.size() == 2);
  // two norms, three products of attention in one, its output, two products
  const Index layer = 4 * 8 + 3 * 8 * 8 + 3 * 8 + 8 * 8 + 8 + 10 * 8 + 10 + 8 * 10 + 8;
  const Index patches = 8 * 3 * 2 * 2 + 8 + 4 * 4 * 8;
  CHECK(parts[0].name == "vision encoder");
  CHECK(parts[0].numbers == patches + 3 * layer + 2 * 8);
  CHECK(parts[1].name == "projector");
  CHECK(parts[1].numbers == 2 * 8 + 32 * 32 + 32 + 6 * 32 + 6);
}

TEST_CASE("models without encoders have none, and published ones are counted or left alone") {
  const Json mixtral{{"model_type", "mixtral"}};
  CHECK(plan::towers_of(mixtral).empty());
  const Json language{{"model_type", "llama4"}, {"hidden_size", 8}};
  CHECK(plan::towers_of(language).empty());
  for (const plan::PublishedModel& m : plan::published_models()) {
    INFO(m.name);
    CHECK_NOTHROW(plan::towers_of(parse_json(m.config, std::string(m.name))));
  }
}
