// Every example spec of every router trains: 300 steps of a very small model on text from a fixed
// Markov chain bring the loss from that of guessing to near the chain's entropy, the experts'
// weights move and nothing becomes infinite.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/model/config.h"
#include "lib/model/trainer.h"
#include "lib/run/router_warnings.h"
#include "tests/training/toy_text.h"

using namespace moe;
using namespace moe::test;

namespace {

struct Outcome {
  double first = 0, last = 0;  // mean loss of the first and the last ten steps
  bool moved = true;           // every matrix of the experts
};

Outcome train(const std::string& router, const std::string& more) {
  const auto backend = make_backend("reference");
  Decoder<float> model(
      model_config(
          concat("custom:vocabulary=", words,
                 ",hidden=16,layers=1,heads=2,kv_heads=1,width=12,experts=6,context=16,router={",
                 router, "}", more)),
      *backend);
  model.initialise(1);
  Solo comm;
  std::vector<std::int64_t> counts(words, 0);
  std::vector<std::uint32_t> text;
  for (int n = 0; n < 300; ++n) {
    for (const int id : batch_of(std::uint64_t(n), 4, 12).token) {
      ++counts[std::size_t(id)];
      text.push_back(std::uint32_t(id));
    }
  }
  bring(model.moe_layers()[0]->router(), counts, text);
  Trainer trainer(model,
                  {.steps = 300,
                   .sequences = 4,
                   .length = 12,
                   .lr = 1e-2,
                   .decay = 0,
                   .schedule = "cosine:warmup=10"},
                  comm);
  Outcome o;
  auto& bodies = model.moe_layers()[0]->expert_parameters();
  const Matrix<float> up = bodies.up.to_host();
  const Matrix<float> down = bodies.down.to_host();
  for (int step = 0; step < 300; ++step) {
    const StepResult r = trainer.step([&](std::uint64_t n) { return batch_of(n, 4, 12); }, false);
    if (step < 10)
      o.first += r.loss / 10;
    if (step >= 290)
      o.last += r.loss / 10;
  }
  o.moved = !(up == bodies.up.to_host()) && !(down == bodies.down.to_host());
  return o;
}

}  // namespace

TEST_CASE("every router's example specs train") {
  // The chain's own entropy is 0.80 nats, guessing costs ln 16 = 2.77.
  for (const auto& entry : routers().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      const Outcome o = train(spec, "");
      INFO(spec << ": from " << o.first << " to " << o.last);
      CHECK(o.first > 1.8);
      CHECK(o.last < 1.15);
      CHECK(o.moved);
    }
  }
}

TEST_CASE("unequal experts train") {
  for (const char* more :
       {",widths=12*2;4*4",
        ",expert_types=ffn*3;constant;copy;zero,zc_tau=0.75,balance={switch:coef=0.01}"}) {
    const Outcome o = train("softmax:k=2", more);
    INFO(more << ": from " << o.first << " to " << o.last);
    CHECK(o.last < 1.15);
    CHECK(o.moved);
  }
}

TEST_CASE("routers that look at later tokens say so") {
  for (const auto& entry : routers().entries()) {
    const auto router = make_router(std::string(split(entry.examples, ' ')[0]), 6);
    const RouterFacts facts = router->facts();
    const bool causal = facts.causal && facts.causal_in_training;
    const std::string about(entry.about);
    INFO(about);
    CHECK(causal == (about.find("not causal") == about.npos));
  }
}

TEST_CASE("routers that get no gradient or look ahead are named before they train") {
  const auto training = [](const std::string& router) {
    return join(
        router_training_warnings(model_config("nano:balance=none,router={" + router + "}")));
  };
  for (const std::string router : {"softmax:k=1", "sigmoid:k=1"})
    CHECK(training(router).find("gets no gradient") != std::string::npos);
  for (const std::string router : {"softmax:k=1,norm=0", "softmax:k=2", "random:k=2"})
    CHECK(training(router).find("gets no gradient") == std::string::npos);
  CHECK(training("sinkhorn:k=1").find("balances whole batches") != std::string::npos);
  for (const std::string router : {"expert_choice:factor=2", "soft:slots=2"}) {
    const ModelConfig config = model_config("nano:router={" + router + "},balance=none");
    CHECK(looks_ahead(config));
    REQUIRE(router_warnings(config).size() == 1);
    CHECK(router_warnings(config)[0].find("looks ahead") != std::string::npos);
  }
  CHECK_FALSE(looks_ahead(model_config("nano")));
  CHECK(router_warnings(model_config("nano")).empty());
}
