// Plans of placement as the files that engines read.
#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/export/placement.h"
#include "lib/files/json.h"

using namespace moe;

namespace {

PlacementFile small_plan() {
  PlacementFile p;
  p.policy = "eplb";
  p.gpus = 2;
  p.layers = {{1, 3, {0, 1, 2, 0}}, {3, 3, {2, 1, 0, 1}}};
  return p;
}

std::string text_as(const char* format, const PlacementFile& p) {
  return placement_formats().at(format).make(p);
}

}  // namespace

TEST_CASE("a plan says the slots of experts and the experts of slots") {
  const Json j = Json::parse(text_as("plan", small_plan()));
  CHECK(j["layers"] == Json({1, 3}));
  CHECK(j["physical_to_logical"] == Json({{0, 1, 2, 0}, {2, 1, 0, 1}}));
  CHECK(j["logical_to_physical"] == Json({{{0, 3}, {1, -1}, {2, -1}}, {{2, -1}, {1, 3}, {0, -1}}}));
  CHECK(j["replica_counts"] == Json({{2, 1, 1}, {1, 2, 1}}));
}

TEST_CASE("SGLang gets one member, with a row for each hidden layer") {
  PlacementFile p = small_plan();
  p.hidden_layers = 5;
  const Json j = Json::parse(text_as("sglang", p));
  CHECK(j.size() == 1);
  CHECK(j["physical_to_logical_map"] ==
        Json({{0, 1, 2, 0}, {0, 1, 2, 0}, {0, 1, 2, 0}, {2, 1, 0, 1}, {0, 1, 2, 0}}));
  p.hidden_layers = 3;
  CHECK_THROWS_WITH(text_as("sglang", p),
                    "MoE layer 3 is not among 3 hidden layers, counted from 0");
  p.layers[1].experts = 4;
  CHECK_THROWS_AS(text_as("sglang", p), Error);
}

TEST_CASE("vLLM-Ascend gets the experts of each device") {
  const Json j = Json::parse(text_as("vllm-ascend", small_plan()));
  CHECK(j["moe_layer_count"] == 2);
  const Json& second = j["layer_list"][1];
  CHECK(second["layer_id"] == 1);
  CHECK(second["device_count"] == 2);
  CHECK(second["device_list"][1]["device_id"] == 1);
  CHECK(second["device_list"][1]["device_expert"] == Json({0, 1}));
  PlacementFile twins = small_plan();
  twins.layers[0].slots = {0, 0, 1, 2};
  CHECK_THROWS_WITH(text_as("vllm-ascend", twins),
                    "GPU 0 has two copies of expert 0 in layer 1, and vLLM-Ascend keeps one a "
                    "device");
}

TEST_CASE("TensorRT-LLM gets assignments by layer") {
  CHECK(text_as("trtllm", small_plan()) ==
        "num_slots: 4\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n"
        "  1: [0, 1, 2, 0]\n  3: [2, 1, 0, 1]\n");
}

TEST_CASE("what is no placement is not written") {
  PlacementFile p = small_plan();
  check_placement(p);
  p.layers[0].slots = {0, 1, 1, 0};
  CHECK_THROWS_AS(check_placement(p), Error);
  p.layers[0].slots = {0, 1, 2};
  CHECK_THROWS_AS(check_placement(p), Error);
  p.layers[0].slots = {0, 1, 2, 3};
  CHECK_THROWS_AS(check_placement(p), Error);
}
