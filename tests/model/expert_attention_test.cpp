// Experts of attention (feed=moa) in whole tiny models, in f64: gradients against central
// differences, one expert against plain attention, decoding, what a row may see, sizes, refusals.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/cost.h"
#include "lib/model/sizes.h"
#include "tests/model/differences.h"

using namespace moe;

namespace {

constexpr int vocabulary = 11;
const std::string sizes = "custom:vocabulary=11,hidden=8,kv_heads=2,head_dim=4,width=5,context=16,";
const std::string least = sizes + "heads=4,experts=4,mixer=none,feed=moa+moe,";

Batch batch_of(bool padded) {
  Batch b;
  b.start = {0, 5, 12};
  for (int t = 0; t < 12; ++t) {
    b.token.push_back(t * 7 % vocabulary);
    b.target.push_back((t * 5 + 3) % vocabulary);
  }
  if (padded) {
    b.valid.assign(12, 1);
    b.valid[4] = b.valid[11] = 0;
  }
  return b;
}

struct World {
  explicit World(const std::string& fields, const std::string& base = least)
      : backend(make_reference<double>()), model(model_config(base + fields), *backend) {
    Rng rng(3);
    for (auto* p : model.parameters()) {
      const double centre = p->name().ends_with("norm") ? 1 : 0;
      for (double& v : p->mutate().flat())
        v = centre + 0.5 * rng.normal();
    }
  }
  Parameter<double>& at(const std::string& name) {
    for (auto* p : model.parameters()) {
      if (p->name() == name)
        return *p;
    }
    throw Error(Exit::bug, concat("no parameter ", name));
  }
  Matrix<double> logits(const Batch& batch, DecoderState* state = nullptr) {
    Decoder<double>::Tape tape;
    Matrix<double> out;
    model.infer({.batch = batch}, tape, {}, state, &out);
    return out;
  }
  std::unique_ptr<Backend<double>> backend;
  Decoder<double> model;
};

double apart(const Matrix<double>& a, const Matrix<double>& b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (Index i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::abs(a.data()[i] - b.data()[i]));
  return most;
}

void check_gradients(const std::string& fields, bool padded = false) {
  INFO(fields);
  World w(fields);
  const Batch batch = batch_of(padded);
  Decoder<double>::Tape tape;
  test::loss_of(w.model, batch, tape);
  w.model.want_grads();
  w.model.backward({.batch = batch, .training = true}, tape);
  for (Parameter<double>* p : w.model.parameters()) {
    INFO(p->name());
    const test::Compared c = test::compare_with_differences(w.model, *p, 12, batch, tape);
    CHECK(c.tried >= std::min<Index>(2, p->size()));
    CHECK(c.largest > 0);
  }
}

}  // namespace

TEST_CASE("gradients of experts of attention agree with central differences") {
  check_gradients("layers=4,moe_bias=1,balance={switch:coef=0.3;z:coef=0.1}", true);
  check_gradients("layers=2,window=3,tied=1,router={softmax:k=1,norm=0}");
  check_gradients(
      "layers=3,norm_both=1,gate_residual=1,router={sigmoid:k=3},capacity={position:factor=1}");
  check_gradients("layers=2,streams=2,stream_rounds=3");
}

TEST_CASE("one expert of attention that everyone chooses is attention") {
  const std::string one = sizes + "layers=1,experts=1,router={softmax:k=1},heads=2,window=4,";
  World experts("mixer=none,feed=moa", one);
  World plain("feed=moe", one);
  const std::pair<const char*, const char*> same[] = {{"moe.experts.up", "attention.q"},
                                                      {"moe.attention.k", "attention.k"},
                                                      {"moe.attention.v", "attention.v"},
                                                      {"moe.experts.down", "attention.o"},
                                                      {"attention_norm", "attention_norm"}};
  for (const auto& [from, to] : same)
    plain.at(concat("layers.0.", to)).set(experts.at(concat("layers.0.", from)).value());
  for (const char* name : {"embedding", "final_norm", "output"})
    plain.at(name).set(experts.at(name).value());
  const Matrix<double> nothing(plain.at("layers.0.moe.experts.down").value().rows, 5);
  plain.at("layers.0.moe.experts.down").set(nothing.view());
  const Batch batch = batch_of(false);
  CHECK(apart(experts.logits(batch), plain.logits(batch)) <= 1e-12);
  CHECK(apart(experts.logits(batch), Matrix<double>(2, vocabulary)) > 0.1);
}

TEST_CASE("experts of attention decode in pieces what they compute at once") {
  for (const std::string fields :
       {"layers=4,moe_bias=1", "layers=3,window=3,router={softmax:k=3}"}) {
    INFO(fields);
    World w(fields);
    const Batch whole = batch_of(false);
    const Matrix<double> want = w.logits(whole);
    DecoderState state;
    std::vector<Index> start{0, 0, 0};
    Matrix<double> got;
    // rows of each sequence in turn
    for (const auto& [first, second] : {std::pair<Index, Index>{1, 4}, {2, 1}, {1, 1}, {1, 1}}) {
      Batch part;
      part.start = {0, first, first + second};
      part.past = {start[1], start[2] - start[1]};
      for (Index t = 0; t < first; ++t)
        part.token.push_back(whole.token[std::size_t(start[1] + t)]);
      for (Index t = 0; t < second; ++t)
        part.token.push_back(whole.token[std::size_t(5 + start[2] - start[1] + t)]);
      got = w.logits(part, &state);
      start = grown(part, start);
    }
    REQUIRE(start == std::vector<Index>{0, 5, 12});
    CHECK(apart(got, want) <= 1e-12);
  }
}

TEST_CASE("a row of experts of attention depends on earlier rows of its own sequence only") {
  World w("layers=2");
  Batch batch = batch_of(false);
  const Matrix<double> before = w.logits(batch);
  batch.token[1] = 10;  // of the first sequence
  const Matrix<double> after = w.logits(batch);
  CHECK(apart(Matrix<double>(before), after) > 1e-6);
  for (Index v = 0; v < vocabulary; ++v)
    CHECK(before(1, v) == after(1, v));
}

TEST_CASE("a model with experts of attention has the sizes that it states") {
  for (const std::string fields :
       {"layers=4,mixer=none,feed=moa+moe,moe_bias=1", "layers=3,mixer=none,feed=moa,tied=1",
        "layers=4,mixer=none,feed=moa+moe,dense=1",
        "layers=3,mixer=none+none+attention,feed=moa+moe+dense"}) {
    INFO(fields);
    World w(fields, sizes + "heads=4,experts=4,");
    Count built = 0;
    for (auto* p : w.model.parameters())
      built += p->size();
    const Architecture a = architecture_of(w.model.config());
    CHECK(parameters(a).total == built);
    CHECK(cost_of(w.model.config(), 12).parameters == built);
  }
  const ModelConfig c = model_config(least + "layers=4,moe_bias=1");
  const Architecture a = architecture_of(c);
  CHECK(a.moe_layers() == 4);
  CHECK(a.moe()->width == 5);
  // embedding, head and norms; k/v, routers and biases; of 4 experts 2, in attention and feed
  CHECK(parameters(a).a0 == 2 * 88 + 5 * 8 + 2 * 2 * 64 + 4 * (32 + 8) + 2 * 2 * (128 + 120));
  CHECK(cached_per_token(a.layers[0].mixers.at(0)) == 16);
  CHECK(flops(a, 10).attention == 2 * 2.0 * 10 * 4 * 8);
}

TEST_CASE("what experts of attention cannot be is refused in a sentence") {
  CHECK_THROWS_WITH(model_config(sizes + "heads=4,experts=4,layers=2,feed=moa"),
                    Catch::Contains("has experts of attention and the mixer attention"));
  CHECK_THROWS_WITH(model_config(sizes + "heads=4,experts=4,layers=1,kv_rank=4,nope_dim=2,"
                                         "rope_dim=2,value_dim=2,mixer=none,feed=moa"),
                    Catch::Contains("kv_heads"));
  const std::pair<const char*, const char*> all[] = {
      {"layers=2,qk_norm=head", "whose heads are plain"},
      {"layers=2,shared_width=4", "which are all alike"},
      {"layers=2,expert_types=ffn*3;copy", "which are all alike"},
      {"layers=2,router={soft:slots=2}", "mixes rows"},
      {"layers=2,rope={fourier:pairs=2}", "Fourier"},
      {"layers=2,final_norm_eps=-1", "final_norm_eps=-1"}};
  for (const auto& [fields, sentence] : all) {
    INFO(fields);
    CHECK_THROWS_WITH(model_config(least + fields), Catch::Contains(sentence));
  }
}
