// What no router can have written, row by row: repeated experts, logits that are no numbers,
// weights and orders that are not what the trace says.
#include "lib/trace/plausible.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace moe;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float endless = std::numeric_limits<float>::infinity();

bool twice(std::vector<int> ids) {
  return names_twice(ids);
}
bool logits(std::vector<float> z) {
  return logits_fit(z);
}

struct Row {
  TraceHeader header;
  TraceLayer layer;
  std::vector<int> ids = {3, 1};
  bool weights(std::vector<float> w) const {
    return weights_fit(rules_of(header, layer), ids, w);
  }
  bool order(std::vector<float> w) const {
    return order_fits(rules_of(header, layer), ids, w);
  }
};

}  // namespace

TEST_CASE("an expert in two slots is found, missing choices are none") {
  CHECK(twice({0, 0}));
  CHECK(twice({4, 1, 2, 4}));
  CHECK_FALSE(twice({4, 1, 2, 0}));
  CHECK_FALSE(twice({-1, -1, 3, -1}));
  CHECK_FALSE(twice({}));
}

TEST_CASE("logits are numbers, masked experts or not recorded at all") {
  CHECK(logits({1, -2, 0.5f}));
  CHECK(logits({1, -endless, 0.5f}));
  CHECK(logits({not_a_number, not_a_number, not_a_number}));
  CHECK_FALSE(logits({1, not_a_number, 0.5f}));
  CHECK_FALSE(logits({1, endless, 0.5f}));
  CHECK_FALSE(logits({-endless, -endless, -endless}));
}

TEST_CASE("weights fit their kind and their sum") {
  Row r;
  CHECK(r.weights({-3, 9}));  // combine weights of a score that nobody knows
  r.layer.score_fn = ScoreFn::softmax;
  CHECK(r.weights({0.5f, 0.2f}));
  CHECK_FALSE(r.weights({0.9f, 0.3f}));
  CHECK_FALSE(r.weights({0.9f, -0.1f}));
  r.layer.routed_scale = 2.5f;
  CHECK(r.weights({1.5f, 0.9f}));
  CHECK_FALSE(r.weights({1.5f, 1.2f}));
  r.layer.score_fn = ScoreFn::sigmoid;
  CHECK(r.weights({2.4f, 2.3f}));
  CHECK_FALSE(r.weights({2.7f, 0.1f}));
  r.layer = {};
  r.header.weight_normalized = true;
  CHECK(r.weights({0.7f, 0.3f}));
  CHECK(r.weights({0.695f, 0.3f}));        // f16 and less
  CHECK(r.weights({not_a_number, 0.3f}));  // said elsewhere
  CHECK_FALSE(r.weights({0.7f, 0.4f}));
  CHECK_FALSE(r.weights({1.2f, -0.2f}));
  r.layer.routed_scale = 2.5f;
  CHECK(r.weights({1.5f, 1.0f}));
  CHECK(r.weights({0.6f, 0.4f}));  // or without the scale
  CHECK_FALSE(r.weights({1.0f, 1.0f}));
  r.ids = {-1, -1};
  CHECK(r.weights({0, 0}));
  r.ids = {3, 1};
  r.header.weight_normalized = false;
  r.header.weight_kind = "prob";
  CHECK(r.weights({0.3f, 0.2f}));
  CHECK_FALSE(r.weights({0.9f, 0.4f}));
  CHECK_FALSE(r.weights({0.3f, -0.1f}));
  r.header.weight_kind = "score";
  CHECK(r.weights({4, -7}));
}

TEST_CASE("choices are in the order that the trace says") {
  Row r;
  CHECK(r.order({0.3f, 0.7f}));  // a key that nobody knows
  r.layer.score_fn = ScoreFn::softmax;
  CHECK_FALSE(r.order({0.3f, 0.7f}));
  CHECK(r.order({0.7f, 0.3f}));
  CHECK(r.order({}));
  r.header.router_bias = {{0.1f, 0.2f}};
  CHECK(r.order({0.3f, 0.7f}));
  r.header.order = "weight_desc";
  CHECK_FALSE(r.order({0.3f, 0.7f}));
  r.header.order = "id_asc";
  CHECK_FALSE(r.order({}));
  r.ids = {1, 3};
  CHECK(r.order({}));
  r.header.order = "unknown";
  r.ids = {3, 1};
  CHECK(r.order({0.3f, 0.7f}));
}
