// Models made from models: what must stay the same stays the same, what is refused says why, and
// the result trains.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/core/comm.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/edit/edit.h"
#include "lib/edit/merge.h"
#include "lib/model/config.h"
#include "lib/model/copy_weights.h"
#include "lib/model/cost.h"
#include "lib/model/trainer.h"
#include "lib/router/router.h"

using namespace moe;

namespace {

const std::string least =
    "custom:vocabulary=11,hidden=16,heads=2,kv_heads=2,layers=3,width=6,experts=4,context=16,";

Batch batch_of() {
  Batch b;
  b.start = {0, 7, 12};
  for (int t = 0; t < 12; ++t) {
    b.token.push_back(t * 7 % 11);
    b.target.push_back((t * 5 + 3) % 11);
  }
  return b;
}

struct World {
  explicit World(const std::string& fields)
      : backend(make_reference<float>()), model(model_config(least + fields), *backend) {
    Rng rng(3);
    for (auto* p : model.parameters()) {
      const double centre = p->name().ends_with("norm") ? 1 : 0;
      for (float& v : p->mutate().flat())
        v = float(centre + 0.4 * rng.normal());
    }
  }
  std::unique_ptr<Backend<float>> backend;
  Decoder<float> model;
};

Matrix<float> losses(Decoder<float>& model) {
  const Batch batch = batch_of();
  Decoder<float>::Tape tape;
  Matrix<float> logits;
  model.infer({.batch = batch}, tape, {}, nullptr, &logits);
  Matrix<float> out(1, tape.token_loss.size() + logits.size());
  std::ranges::copy(tape.token_loss.flat(), out.data());
  std::ranges::copy(logits.flat(), out.data() + tape.token_loss.size());
  return out;
}

double difference(Decoder<float>& a, Decoder<float>& b) {
  const Matrix<float> x = losses(a);
  const Matrix<float> y = losses(b);
  REQUIRE(x.size() == y.size());
  double worst = 0;
  for (Index i = 0; i < x.size(); ++i) {
    const double d = std::abs(double(x.data()[i]) - double(y.data()[i])) /
                     std::max(1.0, double(std::abs(y.data()[i])));
    if (!(d <= worst))
      worst = d;  // a NaN stays
  }
  return worst;
}

Parameter<float>& parameter(Decoder<float>& model, const std::string& name) {
  for (auto* p : model.parameters()) {
    if (p->name() == name)
      return *p;
  }
  FAIL(name);
  throw 0;
}

void check_trains(Decoder<float>& model) {
  Solo solo;
  Trainer trainer(
      model,
      {.steps = 8, .sequences = 1, .length = 12, .lr = 1e-2, .schedule = "constant:warmup=0"},
      solo);
  const auto next = [](std::uint64_t) {
    return batch_of();
  };
  const double first = trainer.step(next, false).loss;
  double last = first;
  for (int i = 0; i < 7; ++i)
    last = trainer.step(next, false).loss;
  CHECK(last < first);
}

}  // namespace

TEST_CASE("copies of a dense body compute what it computes") {
  for (const std::string activation : {"swiglu", "gelu"}) {
    World dense("dense=1,dense_width=8,activation=" + activation);
    for (const std::string spec :
         {"copy:experts=4,k=2", "copy:experts=1", "copy:experts=5,k=3,every=2"}) {
      INFO(activation << " " << spec);
      const Edited e = upcycle(dense.model, spec, 1);
      CHECK(difference(*e.model, dense.model) < 2e-6);
      CHECK(e.model->config().moe_layers() == (spec.ends_with("every=2") ? 1 : 3));
      CHECK(e.changes.size() == 2);
    }
  }
  World dense("dense=1,dense_width=8");
  const Edited noisy = upcycle(dense.model, "copy:experts=4,noise=0.05", 1);
  CHECK(difference(*noisy.model, dense.model) > 1e-4);
  check_trains(*noisy.model);
  const Edited again = upcycle(dense.model, "copy:experts=4,noise=0.05", 1);
  CHECK(difference(*noisy.model, *again.model) > 0);  // one of them has been trained
}

TEST_CASE("granular shards of a rectified body compute what it computes") {
  for (const std::string activation : {"relu", "relu2"}) {
    World dense("dense=1,dense_width=8,activation=" + activation);
    for (const std::string spec : {"granular:shards=2,expansion=3", "granular:shards=4,expansion=2",
                                   "granular:shards=1,expansion=4"}) {
      INFO(activation << " " << spec);
      const Edited e = upcycle(dense.model, spec, 1);
      CHECK(difference(*e.model, dense.model) < 5e-6);
      CHECK(e.changes[0].find("the output is that of the dense model") != std::string::npos);
    }
  }
  World dense("dense=1,dense_width=8");
  const Edited e = upcycle(dense.model, "granular:shards=4,expansion=2", 1);
  CHECK(e.changes[0].find("only near") != std::string::npos);
  check_trains(*e.model);
}

TEST_CASE("parts of a dense body add up to it when all compute") {
  World dense("dense=1,dense_width=12");
  for (const std::string spec : {"experts=4", "experts=3,order=random", "experts=12"}) {
    INFO(spec);
    const Edited e = split_dense(dense.model, spec, 1);
    CHECK(difference(*e.model, dense.model) < 2e-6);
    CHECK(cost_of(e.model->config(), 1).expert_parameters == 3 * 3 * 16 * 12);
  }
  const Edited some = split_dense(dense.model, "experts=4,k=2", 1);
  CHECK(difference(*some.model, dense.model) > 1e-3);
  check_trains(*some.model);
}

TEST_CASE("removing an expert that takes nothing changes nothing") {
  World biased("router={softmax:k=2,bias=1},dense_layers=1");
  for (auto* m : biased.model.moe_layers()) {
    m->router().correction_bias()[1] = -100;
    m->router().correction_bias()[3] = 0.01;
  }
  const Edited e = remove_experts(biased.model, expert_names("1:1,2:1"));
  CHECK(difference(*e.model, biased.model) < 2e-6);
  CHECK(e.model->config().moe.experts == 3);
  // it moved up with its expert
  CHECK(e.model->moe_layers()[0]->router().correction_bias()[2] == 0.01);
  CHECK(e.changes[0] == "4 experts became 3");
  CHECK(e.changes[1].starts_with("layer 1: experts 1 are gone"));
  check_trains(*e.model);
}

TEST_CASE("experts of lowest score are named, and their like is removed in every layer") {
  World w("dense_layers=1");
  const ExpertScores score = {{0.1, 0.5, 0.1, 0.3}, {0.4, 0.3, 0.2, 0.1}};
  CHECK(lowest(w.model, score, 2) == std::vector<ExpertName>{{1, 0}, {1, 2}, {2, 3}, {2, 2}});
  CHECK_THROWS_WITH(
      remove_experts(w.model, expert_names("1:1")),
      "layer 2 would lose 0 experts and layer 1 1, and all layers have the same number");
  CHECK_THROWS_WITH(remove_experts(w.model, expert_names("0:1")),
                    "there is no expert 0:1 in this model");
  CHECK_THROWS_WITH(remove_experts(w.model, expert_names("1:0,1:1,1:2,2:0,2:1,2:2")),
                    "softmax: k=2 is more than the 1 experts");
  CHECK_THROWS_WITH(expert_names("1:0,x"), "'x' names no expert");
  CHECK_THROWS_WITH(upcycle(w.model, "copy:experts=4", 1),
                    "--upcycle takes a dense model, and this one has 2 MoE layers");
  World dense("dense=1,dense_width=8");
  World grouped("router={softmax:k=2,groups=2,topk_groups=1}");
  CHECK_THROWS_WITH(merge_experts(dense.model, {}), "a dense model has no experts to merge");
  CHECK_THROWS_WITH(upcycle(dense.model, "granular:shards=3", 1),
                    "a feed-forward of width 8 does not cut into 3 equal shards");
  CHECK_THROWS_WITH(add_experts(grouped.model, 2, 0, {}, 1),
                    "the groups of softmax are runs of expert ids, and another number of experts "
                    "would move experts between them");
}

TEST_CASE("added experts are copies, and merging finds them again") {
  World w("router={softmax:k=2,bias=1}");
  const ExpertScores score = {{0, 3, 1, 2}, {0, 3, 1, 2}, {5, 3, 1, 2}};
  const Edited more = add_experts(w.model, 2, 1e-3, score, 1);
  CHECK(more.model->config().moe.experts == 6);
  CHECK(more.changes[1] == "layer 0: experts 4 to 5 are copies of 1, 3");
  CHECK(more.changes[3] == "layer 2: experts 4 to 5 are copies of 0, 1");
  const auto up = parameter(*more.model, "layers.0.moe.experts.up").to_host();
  const auto before = parameter(w.model, "layers.0.moe.experts.up").to_host();
  double apart = 0;
  for (Index i = 0; i < 6 * 16; ++i) {
    CHECK(up.data()[i] == before.data()[i]);  // old ones are untouched
    apart = std::max(apart,
                     double(std::abs(up.data()[4 * 6 * 16 + i] - before.data()[1 * 6 * 16 + i])));
  }
  CHECK(apart > 0);
  CHECK(apart < 0.01);
  check_trains(*add_experts(w.model, 2, 1e-3, score, 1).model);

  const Edited merged = merge_experts(*more.model, {.threshold = 0.99});
  CHECK(merged.model->config().moe.experts == 4);
  CHECK(merged.changes.size() == 1 + 3 * 2);
  CHECK(difference(*merged.model, w.model) < 0.02);
  CHECK_THROWS_WITH(merge_experts(w.model, {.threshold = 0.99}),
                    Catch::StartsWith("nothing was merged"));
  const Edited three = merge_experts(w.model, {.count = 3});
  CHECK(three.model->config().moe.experts == 3);
  CHECK(three.changes[0] == "4 experts became 3");
  CHECK_THROWS_WITH(merge_experts(w.model, {.count = 4}), "of 4 experts 4 cannot be what is left");
  CHECK_THROWS_WITH(merge_experts(w.model, {.count = 1}),
                    "1 experts would stay and a token chooses 2");
}

TEST_CASE("weights go to another configuration where every parameter fits") {
  World w("router={softmax:k=2}");
  const auto backend = make_reference<float>();
  Decoder<float> other(model_config(least + "router={softmax:k=1},balance={z:coef=0.1}"), *backend);
  Decoder<float> wider(
      model_config("custom:vocabulary=11,hidden=32,heads=2,layers=3,width=6,experts=4"), *backend);
  copy_weights(w.model, other);
  for (auto* p : other.parameters())
    CHECK(std::ranges::equal(p->to_host().flat(), parameter(w.model, p->name()).to_host().flat()));
  CHECK_THROWS_WITH(copy_weights(w.model, wider), "embedding is [11, 16] there and [11, 32] here");
}

TEST_CASE("an expert that is knocked out computes nothing, and comes back") {
  World w("router={softmax:k=2,norm=1}");
  MoeLayer<float>& layer = *w.model.moe_layers()[1];
  const Matrix<float> before = losses(w.model);
  layer.knock_out({2}, false);
  const Batch batch = batch_of();
  for (const bool renormalise : {false, true}) {
    layer.knock_out({2}, renormalise);
    Decoder<float>::Tape tape;
    int dropped = 0;
    w.model.infer({.batch = batch}, tape, [&](int n, const MoeTape<float>& t, View<const float>) {
      for (Index r = 0; r < t.routing.tokens() && n == 1; ++r) {
        double sum = 0;
        bool gone = false;
        for (Index j = 0; j < 2; ++j) {
          CHECK(t.routing.computed()(r, j) != 2);
          gone = gone || t.routing.expert(r, j) == 2;
          sum += t.routing.combined()(r, j);
        }
        dropped += gone;
        CHECK((std::abs(sum - 1) < 1e-6) == (renormalise || !gone));
      }
    });
    CHECK(dropped > 0);
    CHECK(losses(w.model) != before);
  }
  Decoder<float>::Tape tape;
  CHECK_THROWS_WITH(w.model.forward({.batch = batch, .training = true}, tape),
                    "a layer with experts knocked out cannot train");
  CHECK_THROWS_WITH(layer.knock_out({4}, false), "there is no expert 4 among 0 to 3");
  layer.knock_out({}, false);
  CHECK(losses(w.model) == before);
}
