// Experts that are one: the same function with its hidden units in another order is found, put in
// order and taken as one; means follow the use that a trace has seen.
#include <catch2/catch.hpp>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/edit/merge.h"
#include "lib/model/config.h"

using namespace moe;

namespace {

constexpr int hidden = 8;
constexpr int width = 5;
constexpr int experts = 4;

struct World {
  std::unique_ptr<Backend<float>> backend = make_reference<float>();
  Decoder<float> model{model_config("custom:vocabulary=11,hidden=8,heads=2,layers=2,width=5,"
                                    "experts=4,context=16,expert_bias=1,router={softmax:k=2}"),
                       *backend};
  World() {
    Rng rng(7);
    for (auto* p : model.parameters()) {
      for (float& v : p->mutate().flat())
        v = float(0.4 * rng.normal());
    }
  }
};

Parameter<float>& parameter(Decoder<float>& model, const std::string& name) {
  for (auto* p : model.parameters()) {
    if (p->name() == name)
      return *p;
  }
  FAIL(name);
  throw 0;
}

// Number (unit, i) of an expert's part, whichever way the units lie in it.
float& number(View<float> all, const std::string& part, int expert, int unit, int i) {
  if (part == "down")
    return all(expert * hidden + i, unit);
  if (part.ends_with("_bias"))
    return all.data[expert * width + unit];
  return all(expert * width + unit, i);
}

constexpr std::array order = {3, 0, 4, 1, 2};

// Expert 3 becomes expert 0 with its units in another order, in every layer.
void shuffle(Decoder<float>& model) {
  for (const std::string layer : {"layers.0.moe.", "layers.1.moe."}) {
    for (const std::string part : {"gate", "up", "down", "gate_bias", "up_bias"}) {
      const View<float> all = parameter(model, layer + "experts." + part).mutate();
      for (int u = 0; u < width; ++u) {
        for (int i = 0; i < hidden; ++i)
          number(all, part, 3, u, i) = number(all, part, 0, order[std::size_t(u)], i);
      }
    }
    const View<float> bias = parameter(model, layer + "experts.down_bias").mutate();
    std::copy_n(bias.data, hidden, bias.data + 3 * hidden);
  }
}

}  // namespace

TEST_CASE("experts that differ in the order of their units alone become one of them") {
  World w;
  shuffle(w.model);
  CHECK_THROWS_WITH(merge_experts(w.model, {.threshold = 0.99}),
                    Catch::StartsWith("nothing was merged"));
  const Edited e = merge_experts(w.model, {.threshold = 0.99, .aligned = true});
  REQUIRE(e.model->config().moe.experts == 3);
  CHECK(e.changes[1].starts_with("layer 0: experts 0, 3 became one (least cosine "));
  CHECK(e.changes[1].ends_with(", hidden units put in one order)"));
  for (const std::string name :
       {"layers.0.moe.experts.gate", "layers.1.moe.experts.down", "layers.1.moe.experts.up_bias",
        "layers.0.moe.experts.down_bias"}) {
    INFO(name);
    const Matrix<float> before = parameter(w.model, name).to_host();
    const Matrix<float> after = parameter(*e.model, name).to_host();
    for (Index i = 0; i < before.size() / experts; ++i)
      CHECK(after.data()[i] == before.data()[i]);
  }
}

TEST_CASE("the mean of merged experts follows their use") {
  World w;
  std::vector<Matrix<float>> alike(2, Matrix<float>(experts, experts));
  for (Matrix<float>& m : alike) {
    for (int i = 0; i < experts; ++i)
      m(i, i) = 1;
    m(1, 2) = m(2, 1) = 0.5f;
  }
  const ExpertScores use = {{0, 3, 1, 0}, {1, 0, 0, 1}};
  const Edited e = merge_experts(w.model, {.count = 3, .use = use, .alike = alike});
  CHECK(e.changes[1] == "layer 0: experts 1, 2 became one (least cosine 0.5, shares 0.75, 0.25)");
  CHECK(e.changes[2] == "layer 1: experts 1, 2 became one (least cosine 0.5)");
  const auto mean = [&](int layer, double share) {
    const std::string name = concat("layers.", layer, ".moe.router.weight");
    const Matrix<float> before = parameter(w.model, name).to_host();
    const Matrix<float> after = parameter(*e.model, name).to_host();
    for (int i = 0; i < hidden; ++i)
      CHECK(after(1, i) == Approx(share * before(1, i) + (1 - share) * before(2, i)));
    CHECK(after(2, 0) == before(3, 0));
  };
  mean(0, 0.75);
  mean(1, 0.5);
}
