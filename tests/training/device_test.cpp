// A whole model trains and decodes on the CUDA backend's operations with the host engine of
// tests/backend, whose memory no host code can touch: the same losses as by the definition, so
// nothing in decoder, layer or trainer looks past a backend's operations.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/backend/reference.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/trainer.h"
#include "lib/run/check_training.h"
#include "tests/backend/host_engine.h"

using namespace moe;

namespace {

constexpr int words = 19;

Batch batch_of(std::uint64_t number) {
  Rng rng = Rng(8).stream(number);
  Batch b;
  for (const Index length : {7, 12}) {
    for (Index t = 0; t < length; ++t) {
      b.token.push_back(int(rng.below(words)));
      b.target.push_back(int(rng.below(words)));
    }
    b.start.push_back(b.tokens());
  }
  b.valid.assign(b.token.size(), 1);
  b.valid.back() = 0;
  return b;
}

struct Outcome {
  std::vector<double> loss, norm;
  Matrix<float> logits;  // after a sequence was fed in two pieces
};
ModelConfig small(const std::string& more) {
  return model_config(concat("custom:vocabulary=", words,
                             ",hidden=16,layers=2,heads=4,kv_heads=2,width=12,experts=5,context=16",
                             more));
}
const TrainOptions ten{.steps = 10, .accumulate = 2, .lr = 0.01};

Outcome outcome_on(Backend<float>& backend, const std::string& more) {
  Decoder<float> model(small(more), backend);
  model.initialise(4);
  Solo comm;
  Trainer trainer(model, ten, comm);
  Outcome out;
  for (int i = 0; i < 4; ++i) {
    const StepResult r = trainer.step(batch_of, true);
    out.loss.push_back(r.total_loss);
    out.norm.push_back(r.gradient_norm);
  }
  DecoderState state;
  for (const auto& piece : {std::vector<int>{1, 2, 3, 4, 5}, {6, 7}}) {
    Batch b;
    b.token = piece;
    b.start = {0, Index(piece.size())};
    Decoder<float>::Tape tape;
    model.infer({.batch = b}, tape, {}, &state, &out.logits);
  }
  return out;
}

void compare(HostCuda& device, const std::string& more, double allowed) {
  INFO(device.name() << " " << more);
  const auto definition = make_backend("reference");
  const Outcome want = outcome_on(*definition, more);
  const Outcome got = outcome_on(device, more);
  for (std::size_t i = 0; i < want.loss.size(); ++i) {
    CHECK(got.loss[i] == Approx(want.loss[i]).epsilon(allowed));
    CHECK(got.norm[i] == Approx(want.norm[i]).epsilon(10 * allowed));
  }
  REQUIRE(got.logits.size() == want.logits.size());
  if (device.rounding() > 0)
    return;  // four rounded steps of training lie between these logits
  for (Index i = 0; i < want.logits.size(); ++i) {
    CHECK(got.logits.data()[i] ==
          Approx(want.logits.data()[i]).epsilon(100 * allowed).margin(100 * allowed));
  }
}

// A run on a device of its own, and all that it would save.
struct Run {
  HostCuda device;
  Decoder<float> model;
  Solo comm;
  Trainer trainer;
  std::vector<double> loss;

  Run(gpu::Choices c, const std::string& more)
      : device(c), model(small(more), device), trainer((model.initialise(4), model), ten, comm) {}
  void steps(int n) {
    for (int i = 0; i < n; ++i) {
      const StepResult r = trainer.step(batch_of, false);
      loss.insert(loss.end(), {r.total_loss, r.gradient_norm});
    }
  }
  struct Saved {
    std::vector<Matrix<float>> numbers;
    std::vector<double> state;
    Index done = 0;
    bool operator==(const Saved&) const = default;
  };
  Saved save() {
    Saved s{.done = trainer.done()};
    for (auto* p : model.parameters())
      s.numbers.push_back(p->to_host());
    for (const auto& m : trainer.moments())
      s.numbers.push_back(m.read());
    for (auto* layer : model.moe_layers()) {
      for (const auto& [name, numbers] : layer->state())
        s.state.insert(s.state.end(), numbers.begin(), numbers.end());
    }
    return s;
  }
  void load(const Saved& s) {
    std::size_t i = 0;
    std::size_t j = 0;
    for (auto* p : model.parameters())
      p->set(s.numbers[i++].view());
    for (const auto& m : trainer.moments())
      m.set(s.numbers[i++].view());
    for (auto* layer : model.moe_layers()) {
      for (const auto& [name, numbers] : layer->state()) {
        for (double& v : numbers)
          v = s.state[j++];
      }
    }
    trainer.resume_at(s.done);
  }
};

}  // namespace

TEST_CASE("a run on a device that was saved and resumed goes on with the same bits") {
  for (const gpu::Choices c : {gpu::Choices{}, gpu::Choices{.half = true}}) {
    const std::string more =
        ",router={sigmoid:k=2,bias=1},balance={bias:rate=0.001;switch:coef=0.01}";
    Run whole(c, more), first(c, more), second(c, more);
    whole.steps(4);
    first.steps(2);
    const auto saved = first.save();
    CHECK_FALSE(saved == whole.save());
    second.load(saved);
    second.steps(2);
    CHECK(second.save() == whole.save());
    CHECK(std::equal(second.loss.begin(), second.loss.end(), whole.loss.begin() + 4,
                     whole.loss.end()));
  }
}

TEST_CASE("a training step waits for the device where docs/architecture.md says") {
  const auto waits = [](const std::string& more, bool looked_at) {
    INFO(more);
    Run run({}, more);
    run.steps(1);
    const std::size_t before = run.device.engine().waits();
    Trainer::Observe observe;
    if (looked_at)
      observe = [](const Batch&, const Decoder<float>::Tape&) {
      };
    run.trainer.step(batch_of, false, observe);
    return run.device.engine().waits() - before;
  };
  // two micro-batches of two layers: the plan of each; one gradient norm and, with it, the losses
  // of both
  for (const char* more : {",router={softmax:k=2},balance={switch:coef=0.01;z:coef=0.001}",
                           ",router={sigmoid:k=2,bias=1},balance={bias:rate=0.001}"}) {
    CHECK(waits(more, false) == 2 * 2 + 2);
    // losses, and logits and choices of each layer, come to the host for whoever looks
    CHECK(waits(more, true) == 2 * (2 + 1 + 2 * 2) + 1);
  }
  // what the device does not decide: scores, plan and gradients of combine weights of each layer;
  // the loss
  for (const char* more :
       {",router={softmax:k=2},balance={switch:coef=0.01,counts=top1}",
        ",router={softmax:k=2},capacity={position:factor=2}", ",router={top_p:p=0.6}"}) {
    CHECK(waits(more, false) == 2 * (2 * 3 + 1) + 1);
  }
}

TEST_CASE(
    "a layer of its own routes on a device: losses, scores' gradients, and draws that are given go "
    "through the host") {
  const auto run = [](Backend<float>& b, const GivenNoise* given, std::vector<double>& losses,
                      std::vector<Matrix<double>>& dscores) {
    LayerConfig c{.hidden = 16,
                  .width = 12,
                  .experts = 6,
                  .router_bias = true,
                  .router = "softmax:k=2,temperature=0.8",
                  .balance = {"concat:coef=0.05", "z:coef=0.01"}};
    MoeLayer<float> layer(c, b);
    std::vector<Parameter<float>*> all;
    layer.collect(all);
    Rng rng(3);
    const auto noise = [&](Index rows, Index cols) {
      Matrix<float> m(rows, cols);
      for (float& v : m.flat())
        v = float(rng.normal());
      return m;
    };
    for (auto* p : all)
      p->set(noise(p->value().rows, p->value().cols).view());
    const Batch batch = batch_of(1);
    const Index tokens = batch.tokens();
    const Array<float> x(b, noise(tokens, 16).view());
    const Array<float> dy(b, noise(tokens, 16).view());
    Array<float> y(b, tokens, 16);
    Array<float> dx(b, tokens, 16);
    MoeTape<float> tape(batch);
    const Pass pass{.batch = batch, .training = true, .rng = &rng, .gate = {.given = given}};
    layer.forward(pass, x.view(), y.view(), tape);
    layer.fetch_routing(tape);
    losses = tape.losses;
    layer.backward(pass, tape, x.view(), dy.view(), dx.view(), {.dscores = &dscores});
    return std::pair{tape.gate->on_device(), dx.to_host()};
  };
  const auto definition = make_backend("reference");
  HostCuda device(gpu::Choices{});
  std::vector<double> want, got;
  std::vector<Matrix<double>> want_scores, got_scores;
  const GivenNoise nothing;
  const GivenNoise routes{.expert = Matrix<int>(19, 2, 1)};
  const auto [host, want_dx] = run(*definition, nullptr, want, want_scores);
  CHECK_FALSE(host);
  const auto [on_device, got_dx] = run(device, &nothing, got, got_scores);
  CHECK(on_device);
  REQUIRE((got.size() == 2 && want.size() == 2 && got_scores.size() == 1 &&
           got_scores[0].size() == want_scores[0].size()));
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(got[i] == Approx(want[i]).epsilon(1e-5));
  for (Index i = 0; i < want_scores[0].size(); ++i)
    CHECK(got_scores[0].data()[i] == Approx(want_scores[0].data()[i]).epsilon(1e-4).margin(1e-5));
  for (Index i = 0; i < want_dx.size(); ++i)
    CHECK(got_dx.data()[i] == Approx(want_dx.data()[i]).epsilon(1e-4).margin(1e-4));
  CHECK_FALSE(run(device, &routes, got, got_scores).first);
}

TEST_CASE(
    "a device routes as the host does: counts, balance losses, entropy and what a trace would "
    "hold") {
  for (const char* more :
       {",router={softmax:k=2},balance={switch:coef=0.01;z:coef=0.001}",
        ",router={softmax:k=2,norm=0,temperature=0.7},balance={concat:coef=0.02}",
        ",router={softmax:k=1,bias=1},balance={bias:rate=0.01;switch:coef=0.01,scope=global,layers="
        "mean}",
        ",router={sigmoid:k=3,bias=1,scale=1.5},balance={z:coef=0.01;switch:coef=0.01},router_bias="
        "1,shared_width=6"}) {
    INFO(more);
    HostCuda there(gpu::Choices{});
    const auto definition = make_backend("reference");
    Decoder<float> got_model(small(more), there);
    Decoder<float> want_model(small(more), *definition);
    got_model.initialise(4);
    want_model.initialise(4);
    Solo comm;
    Trainer got(got_model, ten, comm), want(want_model, ten, comm);
    std::vector<Routing> seen[2];
    const auto keep = [](std::vector<Routing>& to) {
      return [&to](const Batch&, const Decoder<float>::Tape& tape) {
        for (const auto& block : tape.block)
          to.push_back(block.moe->routing);
      };
    };
    for (int step = 0; step < 3; ++step) {
      const StepResult a = got.step(batch_of, true, keep(seen[0]));
      const StepResult b = want.step(batch_of, true, keep(seen[1]));
      CHECK(a.total_loss == Approx(b.total_loss).epsilon(1e-5));
      for (std::size_t l = 0; l < 2; ++l) {
        CHECK(a.layer[l].counts == b.layer[l].counts);
        CHECK(a.layer[l].kept == b.layer[l].kept);
        CHECK(a.layer[l].tokens == b.layer[l].tokens);
        CHECK(a.layer[l].entropy == Approx(b.layer[l].entropy).epsilon(1e-5));
        REQUIRE(a.layer[l].losses.size() == b.layer[l].losses.size());
        for (std::size_t i = 0; i < b.layer[l].losses.size(); ++i)
          CHECK(a.layer[l].losses[i] == Approx(b.layer[l].losses[i]).epsilon(1e-5));
      }
    }
    REQUIRE(seen[0].size() == seen[1].size());
    for (std::size_t i = 0; i < seen[0].size(); ++i) {
      CHECK(seen[0][i].expert == seen[1][i].expert);
      for (Index n = 0; n < seen[1][i].weight.size(); ++n)
        CHECK(seen[0][i].weight.data()[n] == Approx(seen[1][i].weight.data()[n]).epsilon(1e-4));
      for (Index n = 0; n < seen[1][i].score.size(); ++n)
        CHECK(seen[0][i].score.data()[n] == Approx(seen[1][i].score.data()[n]).epsilon(1e-4));
    }
  }
}

TEST_CASE("a model trains and decodes where the host cannot touch its numbers") {
  HostCuda device(gpu::Choices{});
  for (const char* more : {",router={softmax:k=2},balance={switch:coef=0.01}",
                           ",router={sigmoid:k=2,bias=1},balance={bias:rate=0.001},qk_norm=head",
                           ",router={softmax:k=2},gate_residual=1", ",router={top_p:p=0.6}",
                           ",mixer={mamba2:state=4,head_dim=8;gdn:key_dim=8}",
                           ",mixer={kda:head_dim=8;lightning}", ",mixer={mamba1:state=4;rwkv4}",
                           ",mixer={rwkv7:head_dim=8}", ",mixer={rwkv6:head_dim=8;rwkv_channel}"}) {
    compare(device, more, 1e-5);
  }
  HostCuda rounded(gpu::Choices{.half = true});
  compare(rounded, ",router={softmax:k=2}", 2e-2);
}

TEST_CASE("whole models pass the check of training, on the host engine in f32 and bf16") {
  const auto definition = make_backend("reference");
  for (const gpu::Choices c : {gpu::Choices{}, gpu::Choices{.half = true}}) {
    HostCuda device(c);
    const auto all = check_training(device, *definition);
    CHECK(all.size() == 12);
    for (const TrainingVerdict& v : all) {
      INFO(device.name() << " " << v.what << " " << v.of << ": " << v.error << " of " << v.allowed
                         << ", " << v.sentence);
      CHECK(v.passed);
    }
  }
}

namespace {

// The definition with one thing wrong that a check of whole models must find.
struct Faulty : Reference<float> {
  explicit Faulty(std::string f) : fault(std::move(f)) {}
  void norm_backward(View<const float> dy, View<const float> x, View<const float> w,
                     View<const float> rstd, View<float> dx, View<float> dw, float beta) override {
    Reference::norm_backward(dy, x, w, rstd, dx, dw, beta);
    if (fault == "gradient" && !dw.empty())
      dw(0, 0) += 0.1f;
    if (fault == "nan" && !dw.empty())
      dw(0, 0) = std::nanf("");
  }
  void adamw(View<float> value, View<float> grad, View<float> m, View<float> v,
             const AdamW& o) override {
    Reference::adamw(value, grad, m, v, o);
    // hangs on what was done before
    if (fault == "memory" && o.step > 3)
      value(0, 0) += float(++calls) * 1e-7f;
  }
  std::string fault;
  int calls = 0;
};

}  // namespace

TEST_CASE("the check of training finds wrong gradients and runs that do not resume") {
  const auto definition = make_backend("reference");
  for (const auto& [fault, what] :
       {std::pair{"gradient", "model gradients"}, {"memory", "save and resume"}}) {
    Faulty device(fault);
    bool found = false;
    for (const TrainingVerdict& v : check_training(device, *definition))
      found = found || (v.what == what && !v.passed);
    INFO(fault);
    CHECK(found);
  }
  Faulty device("nan");
  CHECK_THROWS_AS(check_training(device, *definition), Error);  // the trainer refuses to go on
}
