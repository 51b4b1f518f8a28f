// The gradient noise scale: the estimate against drawn gradients whose noise is known, what the
// trainer reports against gradients of single micro-batches, and the same numbers on several ranks.
#include "lib/model/noise.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/comm/threads.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/trainer.h"
#include "lib/run/start_run.h"
#include "tests/files/scratch.h"

using namespace moe;
using nlohmann::json;

namespace {

// Mean and standard error.
struct Mean {
  double sum = 0, squares = 0;
  int n = 0;
  void add(double v) {
    sum += v;
    squares += v * v;
    ++n;
  }
  double value() const {
    return sum / n;
  }
  double error() const {
    return std::sqrt((squares / n - value() * value()) / (n - 1));
  }
};

constexpr int words = 13;
constexpr Index length = 8;

Batch batch_of(Index number, Index sequences) {
  Batch b;
  for (Index q = 0; q < sequences; ++q) {
    Rng rng = Rng(5).stream(std::uint64_t(number * sequences + q));
    for (Index t = 0; t < length; ++t) {
      b.token.push_back(int(rng.below(words)));
      b.target.push_back(int(rng.below(words)));
    }
    b.start.push_back(b.tokens());
  }
  return b;
}

struct Model {
  std::unique_ptr<Backend<float>> backend = make_backend("reference");
  Decoder<float> decoder{
      model_config(concat("custom:vocabulary=", words,
                          ",hidden=12,layers=2,heads=2,kv_heads=1,width=10,experts=4,context=8,"
                          "router={softmax:k=2},balance=switch,expert_bias=1")),
      *backend};
  Model() {
    decoder.initialise(3);
  }
};

TrainOptions four_lanes() {
  return {.steps = 5,
          .sequences = 2,
          .length = length,
          .accumulate = 4,
          .lanes = 4,
          .noise_scale = true};
}

// Squares of the mean gradient of micro-batches `first` .. `first + count`, of all numbers and of
// each expert's matrices in each layer.
struct Squares4 {
  double all = 0;
  std::vector<double> expert = std::vector<double>(8, 0);
};

Squares4 squares_of(Decoder<float>& model, Index first, Index count) {
  model.want_grads();
  model.clear_grads();
  for (Index n = first; n < first + count; ++n) {
    const Batch batch = batch_of(n, 2);
    Rng rng = Rng(1).stream(std::uint64_t(n));
    const Pass pass{
        .batch = batch, .training = true, .rng = &rng, .loss_scale = 1.0 / double(count)};
    Decoder<float>::Tape tape;
    model.forward(pass, tape);
    model.backward(pass, tape);
  }
  Squares4 out;
  for (auto* p : model.parameters())
    out.all += model.backend().sum_squares(p->grad());
  const auto layers = model.moe_layers();
  for (std::size_t l = 0; l < layers.size(); ++l) {
    auto& experts = layers[l]->expert_parameters();
    for (auto* p : {&experts.gate, &experts.up, &experts.down}) {
      for (Index e = 0; e < 4; ++e)
        out.expert[4 * l + std::size_t(e)] +=
            model.backend().sum_squares(p->grad().block(e, p->value().rows / 4));
    }
  }
  return out;
}

}  // namespace

TEST_CASE("the noise scale of drawn gradients is the one that they were drawn with") {
  // gradient (2, 0, ..), covariance of one token diag(1, 2, .. 12): scale 78 / 4
  constexpr int dims = 12;
  constexpr int batches = 8;
  constexpr double tokens = 16;
  Mean square, trace, of_single_steps;
  Rng rng(11);
  for (int step = 0; step < 4000; ++step) {
    double small = 0;
    std::vector<double> mean(dims, 0);
    for (int b = 0; b < batches; ++b) {
      for (int d = 0; d < dims; ++d) {
        const double g = (d == 0 ? 2 : 0) + std::sqrt((d + 1) / tokens) * rng.normal();
        small += g * g / batches;
        mean[std::size_t(d)] += g / batches;
      }
    }
    double big = 0;
    for (const double g : mean)
      big += g * g;
    const NoiseEstimate n = estimate_noise(small, big, tokens, batches * tokens);
    square.add(n.square);
    trace.add(n.trace);
    of_single_steps.add(n.trace / n.square);
  }
  CHECK(std::abs(square.value() - 4) < 4 * square.error());
  CHECK(std::abs(trace.value() - 78) < 4 * trace.error());
  CHECK(trace.value() / square.value() == Approx(78.0 / 4).epsilon(0.02));
  // why lines hold both numbers and not their ratio
  CHECK(of_single_steps.value() > trace.value() / square.value() + 4 * of_single_steps.error());
}

TEST_CASE("batches that are alike have no noise, and opposite ones no signal") {
  const NoiseEstimate alike = estimate_noise(9, 9, 10, 40);
  CHECK(alike.trace == 0);
  CHECK(alike.square == Approx(9));
  const NoiseEstimate opposite = estimate_noise(9, 0, 10, 20);
  CHECK(opposite.square < 0);
  CHECK(opposite.trace > 0);
}

TEST_CASE("the trainer's noise is that of the gradients of its micro-batches") {
  Model by_hand, trained;
  Solo solo;
  Trainer trainer(trained.decoder, four_lanes(), solo);
  const StepResult r = trainer.step([](std::uint64_t n) { return batch_of(Index(n), 2); }, true);
  Squares4 mean;
  for (Index n = 0; n < 4; ++n) {
    const Squares4 one = squares_of(by_hand.decoder, n, 1);
    mean.all += one.all / 4;
    for (std::size_t e = 0; e < 8; ++e)
      mean.expert[e] += one.expert[e] / 4;
  }
  const Squares4 big = squares_of(by_hand.decoder, 0, 4);
  const auto agree = [](const NoiseEstimate& n, double small, double whole) {
    const NoiseEstimate want = estimate_noise(small, whole, 16, 64);
    CHECK(n.square == Approx(want.square).epsilon(1e-4).margin(1e-9));
    CHECK(n.trace == Approx(want.trace).epsilon(1e-4));
  };
  REQUIRE(r.noise);
  agree(*r.noise, mean.all, big.all);
  for (std::size_t l = 0; l < 2; ++l) {
    REQUIRE(r.layer[l].noise.size() == 4);
    for (std::size_t e = 0; e < 4; ++e)
      agree(r.layer[l].noise[e], mean.expert[4 * l + e], big.expert[4 * l + e]);
  }
  CHECK(r.noise->trace > 0);
}

TEST_CASE("the same batch in every lane has no noise, and measuring changes no weight") {
  Model same, plain;
  Solo solo;
  TrainOptions o = four_lanes();
  Trainer measured(same.decoder, o, solo);
  o.noise_scale = false;
  Trainer other(plain.decoder, o, solo);
  const auto one_batch = [](std::uint64_t) {
    return batch_of(0, 2);
  };
  const StepResult r = measured.step(one_batch, true);
  const StepResult without = other.step(one_batch, true);
  CHECK(r.noise->trace == Approx(0).margin(1e-4 * r.gradient_norm * r.gradient_norm * 64));
  CHECK(r.noise->square == Approx(r.gradient_norm * r.gradient_norm).epsilon(1e-5));
  CHECK(!without.noise);
  CHECK(without.layer[0].noise.empty());
  CHECK(!measured.step(one_batch, false).noise);  // at log steps only
  other.step(one_batch, false);
  const auto a = same.decoder.parameters();
  const auto b = plain.decoder.parameters();
  for (std::size_t i = 0; i < a.size(); ++i)
    CHECK(a[i]->to_host() == b[i]->to_host());
}

TEST_CASE("experts that are frozen have no noise, and one lane is refused") {
  Model m;
  Solo solo;
  TrainOptions o = four_lanes();
  o.trained = "router;experts=1,3";
  Trainer trainer(m.decoder, o, solo);
  const StepResult r = trainer.step([](std::uint64_t n) { return batch_of(Index(n), 2); }, true);
  CHECK(std::isnan(r.layer[0].noise[0].trace));
  CHECK(r.layer[0].noise[1].trace > 0);
  CHECK(r.noise->trace > r.layer[0].noise[1].trace);
  o.lanes = 1;
  CHECK_THROWS_WITH(Trainer(m.decoder, o, solo),
                    "the gradient noise scale compares the gradients of lanes with that of the "
                    "whole step, and a step of this run has one lane");
}

TEST_CASE("the noise of a run is the same on any number of ranks, and goes on with it") {
  const test::Scratch scratch;
  RunOptions o;
  o.data = {"clusters:vocabulary=64,clusters=4,valid=200"};
  o.train = four_lanes();
  o.length = 12;
  o.save_every = 2;
  o.save_minutes = 0;
  o.eval_tokens = 96;
  o.log_every = 2;
  const char* model =
      "custom:vocabulary=320,hidden=16,layers=2,heads=2,kv_heads=1,width=12,context=12,experts=4,"
      "router={softmax:k=2},balance=none";
  class Stop final : public TrainingObserver {
   public:
    bool wants_stop() override {
      return stop;
    }
    bool stop = false;
  };
  const auto context = [](Backend<float>& backend, Comm& comm, const RankOptions& ranks) {
    return RunContext{[&backend](const std::string&) -> Backend<float>& { return backend; },
                      {.version = "0", .command = "t", .created_utc = "2020-01-01T00:00:00Z"},
                      &comm,
                      ranks,
                      {}};
  };
  const auto lines = [&](const std::string& name, int ranks, const RankOptions& share, bool halt) {
    o.folder = (scratch / name).string();
    as_threads(ranks, [&](Comm& comm) {
      const auto backend = make_backend("reference");
      Stop observer;
      observer.stop = halt;
      train(*start_run(model_config(model), o, context(*backend, comm, share), observer), observer);
      observer.stop = false;
      if (halt)
        train(*resume_run(o.folder, {}, context(*backend, comm, share), observer), observer);
    });
    std::ifstream in(o.folder + "/metrics.jsonl");
    std::vector<json> out;
    for (std::string line; std::getline(in, line);) {
      out.push_back(json::parse(line));
      for (const char* of_time : {"tokens_per_second", "ranks"})
        out.back().erase(of_time);
    }
    return out;
  };
  const auto one = lines("one", 1, {}, false);
  REQUIRE(one.size() == 5);  // the steps 1, 2, 4, 5 and the validation
  CHECK(one[0].at("noise_trace").get<double>() > 0);
  CHECK(one[0].at("layers").at(1).at("noise_square").size() == 4);
  CHECK(lines("two", 2, {}, false) == one);
  CHECK(lines("four", 4, {.zero = 1, .expert_ranks = 2}, false) == one);
  CHECK(lines("three", 3, {.zero = 0, .expert_ranks = 3}, false) == one);
  CHECK(lines("stopped", 2, {.zero = 1}, true) == one);
}
