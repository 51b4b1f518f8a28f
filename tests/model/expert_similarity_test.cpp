// How alike the experts of a model are, as a trace stores it: an expert that is another's copy is
// found by weights, by neurons in any order and by outputs.
#include <catch2/catch.hpp>

#include <algorithm>

#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/run/recorder.h"

using namespace moe;

TEST_CASE("a copied expert is the same by every measure, and others are not") {
  const auto backend = make_reference<float>();
  Decoder<float> model(model_config("custom:vocabulary=11,hidden=8,heads=2,layers=1,width=5,"
                                    "experts=4,context=16,router={softmax:k=2}"),
                       *backend);
  model.initialise(3);
  auto& bodies = model.moe_layers()[0]->expert_parameters();
  for (auto* p : {&bodies.gate, &bodies.up, &bodies.down}) {
    Matrix<float> host = p->to_host();
    const Index rows = host.rows() / 4;
    std::ranges::copy(host.view().block(0, rows).flat(), host.view().block(2, rows).data);
    p->set(std::as_const(host).view());
  }
  for (const PairMatrix& m : weight_similarity(model, true)) {
    INFO(m.name);
    REQUIRE(m.layer.size() == 1);
    CHECK(m.layer[0](0, 2) == Approx(1));
    CHECK(m.layer[0](0, 1) < 0.9);
  }
  Rng rng(5);
  Matrix<float> x(20, 8);
  for (float& v : x.flat())
    v = float(rng.normal());
  Matrix<int> chosen(20, 2, 1);
  OutputSimilarity outputs(model, 12);
  outputs.see(0, std::as_const(x).view(), chosen);
  outputs.batch_done();
  CHECK_FALSE(outputs.wants_more());
  const auto all = outputs.result();
  REQUIRE(all.size() == OutputSimilarity::names().size());
  CHECK(all[0].layer[0](0, 2) == Approx(1));
  CHECK(all[0].layer[0](0, 1) < 0.9);
  CHECK(all[1].layer[0](2, 0) == Approx(1));
  CHECK(all[2].layer[0](0, 2) == Approx(0).margin(1e-3));
  CHECK(all[3].layer[0](1, 0) > 0.1);
  CHECK(all[3].layer[0](0, 2) == 0);  // neither was chosen
}
