// What one step does to the parameters: AdamW by its formula from the moments the trainer shows,
// clipping, accumulation, weight decay and the learning rate of each group; and the defaults.
#include <catch2/catch.hpp>

#include <cmath>
#include <functional>
#include <map>

#include "lib/balance/balancer.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/trainer.h"

using namespace moe;

namespace {

constexpr int words = 13;

// `sequences` sequences, the first of them number `first` of one endless text.
Batch batch_of(Index first, Index sequences) {
  Batch b;
  for (Index q = 0; q < sequences; ++q) {
    Rng rng = Rng(5).stream(std::uint64_t(first + q));
    for (Index t = 0; t < 8; ++t) {
      b.token.push_back(int(rng.below(words)));
      b.target.push_back(int(rng.below(words)));
    }
    b.start.push_back(b.tokens());
  }
  return b;
}

struct Setup {
  std::unique_ptr<Backend<float>> backend = make_backend("reference");
  Decoder<float> model{
      model_config(concat("custom:vocabulary=", words,
                          ",hidden=12,layers=2,heads=2,kv_heads=1,width=10,experts=4,context=8,"
                          "router={softmax:k=2},balance=none,shared_width=6,shared_gate=1")),
      *backend};
  Solo comm;
  TrainOptions options;
  Trainer trainer;

  explicit Setup(const TrainOptions& o) : options(o), trainer(drawn(), o, comm) {}
  StepResult step(bool norms = false) {
    return trainer.step(
        [&](std::uint64_t n) { return batch_of(Index(n) * options.sequences, options.sequences); },
        norms);
  }

 private:
  Decoder<float>& drawn() {
    model.initialise(3);
    return model;
  }
};

using Values = std::map<std::string, std::vector<float>>;

Values parameters_of(Setup& s) {
  Values out;
  for (const auto* p : s.model.parameters()) {
    const Matrix<float> host = p->to_host();
    out[p->name()] = {host.flat().begin(), host.flat().end()};
  }
  return out;
}
Values moments_of(Setup& s) {
  Values out;
  for (const Trainer::Moment& m : s.trainer.moments()) {
    const Matrix<float> host = m.read();
    out[m.name] = {host.flat().begin(), host.flat().end()};
  }
  return out;
}
double norm_of(const Values& moments, const std::string& ending) {
  double sum = 0;
  for (const auto& [name, values] : moments) {
    for (const float v : values)
      sum += name.ends_with(ending) ? double(v) * double(v) : 0;
  }
  return std::sqrt(sum);
}
// Largest change of any number of the parameters of a group.
double largest_move(Setup& s, const Values& before, const Values& after, const std::string& group) {
  double most = 0;
  for (const ModelParameter<float>& p : s.model.inventory()) {
    if (p.group != group)
      continue;
    const std::string& name = p.parameter->name();
    for (std::size_t i = 0; i < before.at(name).size(); ++i)
      most = std::max(most, std::abs(double(after.at(name)[i]) - double(before.at(name)[i])));
  }
  return most;
}

}  // namespace

TEST_CASE("the defaults of training are the documented ones") {
  const TrainOptions o;
  CHECK(o.steps == 2000);
  CHECK(o.sequences == 16);
  CHECK(o.length == 256);
  CHECK(o.accumulate == 1);
  CHECK(o.lr == 1e-3);
  CHECK(o.beta1 == 0.9);
  CHECK(o.beta2 == 0.95);
  CHECK(o.eps == 1e-8);
  CHECK(o.decay == 0.1);
  CHECK(o.clip == 1.0);
  CHECK(o.schedule == "cosine");
  CHECK(o.trained == "all");
  CHECK(o.lr_factor.empty());
  CHECK(o.seed == 1);
  CHECK(TrainOptions{.sequences = 3, .length = 5, .accumulate = 7}.tokens_per_step() == 105);
}

TEST_CASE("a step moves every number as AdamW's formula says") {
  // a large eps, so that it shows; decoupled decay on matrices alone
  Setup s({.steps = 40,
           .sequences = 2,
           .length = 8,
           .lr = 0.02,
           .beta1 = 0.8,
           .beta2 = 0.9,
           .eps = 1e-3,
           .decay = 0.3,
           .schedule = "cosine:warmup=4,floor=0.1"});
  std::map<std::string, bool> is_matrix;
  for (const auto* p : s.model.parameters())
    is_matrix[p->name()] = p->kind() == ParameterKind::matrix;
  REQUIRE(std::ranges::any_of(is_matrix, [](const auto& p) { return !p.second; }));
  const Schedule schedule("cosine:warmup=4,floor=0.1", 40);
  for (int step = 1; step <= 6; ++step) {
    const Values before = parameters_of(s);
    const StepResult r = s.step();
    CHECK(r.step == step);
    CHECK(r.lr == Approx(0.02 * schedule.factor(step - 1)).epsilon(1e-14));
    const Values after = parameters_of(s);
    const Values moments = moments_of(s);
    const double c1 = 1 - std::pow(0.8, step);
    const double c2 = 1 - std::pow(0.9, step);
    double worst = 0;
    for (const auto& [name, old] : before) {
      const auto& m = moments.at(name + ".m");
      const auto& v = moments.at(name + ".v");
      const double decay = is_matrix.at(name) ? 0.3 : 0;
      for (std::size_t i = 0; i < old.size(); ++i) {
        const double slope = m[i] / c1 / (std::sqrt(v[i] / c2) + 1e-3) + decay * double(old[i]);
        worst =
            std::max(worst, std::abs(double(old[i]) - r.lr * slope - double(after.at(name)[i])));
      }
    }
    INFO("step " << step);
    CHECK(worst < 2e-7);  // the last bit of a float below 2
  }
}

TEST_CASE("gradients longer than the clip are scaled to it, shorter ones are left alone") {
  const TrainOptions base{.steps = 10, .sequences = 2, .length = 8, .lr = 1e-3};
  TrainOptions none = base;
  none.clip = 0;
  Setup free(none);
  const double norm = free.step().gradient_norm;
  REQUIRE(norm > 0.1);
  // the first moments are (1 - beta1) g, the second (1 - beta2) g^2
  CHECK(norm_of(moments_of(free), ".m") == Approx(0.1 * norm).epsilon(1e-5));
  for (const double clip : {norm / 4, norm * 4}) {
    TrainOptions clipped = base;
    clipped.clip = clip;
    Setup s(clipped);
    CHECK(s.step().gradient_norm == Approx(norm).epsilon(1e-12));
    const double kept = std::min(clip, norm);
    CHECK(norm_of(moments_of(s), ".m") == Approx(0.1 * kept).epsilon(1e-5));
    double squares = 0;
    for (const auto& [name, values] : moments_of(s)) {
      for (const float v : values)
        squares += name.ends_with(".v") ? double(v) : 0;
    }
    CHECK(squares == Approx(0.05 * kept * kept).epsilon(1e-5));
  }
}

TEST_CASE("micro-batches are averaged: accumulated they are one large batch") {
  TrainOptions whole{.steps = 10, .sequences = 6, .length = 8};
  TrainOptions parts = whole;
  parts.sequences = 2;
  parts.accumulate = 3;
  Setup a(whole);
  Setup b(parts);
  for (int n = 0; n < 3; ++n) {
    const StepResult one = a.step(true);
    const StepResult three = b.step(true);
    CHECK(three.loss == Approx(one.loss).epsilon(1e-5));
    CHECK(three.total_loss == Approx(one.total_loss).epsilon(1e-5));
    CHECK(three.gradient_norm == Approx(one.gradient_norm).epsilon(1e-4));
    REQUIRE(three.layer.size() == 2);
    for (std::size_t l = 0; l < 2; ++l) {
      CHECK(three.layer[l].counts == one.layer[l].counts);
      CHECK(three.layer[l].kept == one.layer[l].kept);
      CHECK(three.layer[l].tokens == 48);
      CHECK(three.layer[l].entropy == Approx(one.layer[l].entropy).epsilon(1e-5));
      for (std::size_t e = 0; e < 4; ++e) {
        CHECK(three.layer[l].gradient_norm[e] ==
              Approx(one.layer[l].gradient_norm[e]).epsilon(1e-4));
      }
    }
  }
}

TEST_CASE("each group of parameters has its own learning rate") {
  Setup s({.steps = 10,
           .sequences = 2,
           .length = 8,
           .lr = 0.01,
           .eps = 1e-12,
           .decay = 0,
           .clip = 0,
           .schedule = "constant:warmup=2",
           .lr_factor = "router=0.1,experts=2"});
  const Values before = parameters_of(s);
  CHECK(s.step().lr == Approx(0.005).epsilon(1e-14));  // of the peak, halfway up the warm-up
  const Values after = parameters_of(s);
  // the first step of AdamW is the learning rate times the sign of the gradient
  CHECK(largest_move(s, before, after, "router") == Approx(0.0005).epsilon(1e-3));
  CHECK(largest_move(s, before, after, "experts") == Approx(0.01).epsilon(1e-3));
  for (const char* group : {"shared", "attention", "norms", "embedding"}) {
    INFO(group);
    CHECK(largest_move(s, before, after, group) == Approx(0.005).epsilon(1e-3));
  }
}

TEST_CASE("weight decay shrinks matrices and spares vectors") {
  TrainOptions with{.steps = 10, .sequences = 2, .length = 8, .lr = 0.01, .decay = 0.5};
  TrainOptions without = with;
  without.decay = 0;
  Setup a(with);
  Setup b(without);
  const Values before = parameters_of(a);
  const double lr = a.step().lr;
  b.step();
  const Values decayed = parameters_of(a);
  const Values plain = parameters_of(b);
  for (const auto* p : a.model.parameters()) {
    INFO(p->name());
    const double decay = p->kind() == ParameterKind::matrix ? 0.5 : 0;
    double worst = 0;
    for (std::size_t i = 0; i < plain.at(p->name()).size(); ++i) {
      const double want =
          double(plain.at(p->name())[i]) - lr * decay * double(before.at(p->name())[i]);
      worst = std::max(worst, std::abs(want - double(decayed.at(p->name())[i])));
    }
    CHECK(worst < 2e-7);
  }
}

TEST_CASE("an expert's steps with gradient are those in which it computed something") {
  Setup s({.steps = 10, .sequences = 1, .length = 8});
  std::vector<std::vector<std::int64_t>> expected(2, std::vector<std::int64_t>(4));
  for (int n = 0; n < 5; ++n) {
    const StepResult r = s.step();
    for (std::size_t l = 0; l < 2; ++l) {
      for (std::size_t e = 0; e < 4; ++e)
        expected[l][e] += r.layer[l].kept[e] > 0;
    }
  }
  CHECK(s.trainer.steps_with_gradient() == expected);
  CHECK(s.trainer.done() == 5);
}

namespace {

constexpr int kinds = 4;  // of experts

struct Counted {
  std::vector<std::vector<double>> mean;  // (micro-batches)(E)
  std::vector<std::vector<std::int64_t>> counts;
};

struct GlobalRun {
  std::unique_ptr<Backend<float>> backend = make_backend("reference");
  Decoder<float> model;
  Solo comm;
  TrainOptions options;
  Counted seen;
  StepResult result;

  GlobalRun(const std::string& scope, Index accumulate, Index lanes)
      : model(model_config(concat(
                  "custom:vocabulary=", words,
                  ",hidden=12,layers=1,heads=2,kv_heads=1,width=10,experts=", kinds,
                  ",context=8,router={softmax:k=2},balance={switch:coef=3,scope=", scope, "}")),
              *backend) {
    options.steps = 3;
    options.sequences = 1;
    options.length = 8;
    options.accumulate = accumulate;
    options.lanes = lanes;
    options.clip = 0;
    model.initialise(3);
    Trainer trainer(model, options, comm);
    result = trainer.step([](std::uint64_t n) { return batch_of(Index(n), 1); }, false,
                          [&](const Batch&, const Decoder<float>::Tape& tape) { note(tape); });
  }
  void note(const Decoder<float>::Tape& tape) {
    const MoeTape<float>& t = *tape.block.at(0).moe;
    std::vector<double> mean(kinds, 0.0);
    for (Index n = 0; n < t.probability.rows(); ++n) {
      for (Index e = 0; e < kinds; ++e)
        mean[std::size_t(e)] += t.probability(n, e) / double(t.probability.rows());
    }
    seen.mean.push_back(mean);
    seen.counts.push_back(count_experts(t.routing.expert, kinds));
  }
  // E sum_e f_e P_e, the mean over micro-batches m, f from those that m sees
  double expected(const std::function<bool(std::size_t m, std::size_t other)>& sees) const {
    double loss = 0;
    for (std::size_t m = 0; m < seen.counts.size(); ++m) {
      std::vector<double> n(kinds, 0.0);
      double all = 0;
      for (std::size_t other = 0; other < seen.counts.size(); ++other) {
        for (std::size_t e = 0; sees(m, other) && e < kinds; ++e) {
          n[e] += double(seen.counts[other][e]);
          all += double(seen.counts[other][e]);
        }
      }
      for (std::size_t e = 0; e < kinds; ++e)
        loss += kinds * n[e] / all * seen.mean[m][e] / double(seen.counts.size());
    }
    return loss;
  }
};

// The norm of the gradient of all micro-batches, each given the counts of the others.
double norm_by_hand(const GlobalRun& done) {
  const auto backend = make_backend("reference");
  Decoder<float> model(done.model.config(), *backend);
  model.initialise(3);
  model.want_grads();
  for (std::size_t m = 0; m < done.seen.counts.size(); ++m) {
    std::vector<std::int64_t> others(kinds, 0);
    for (std::size_t o = 0; o < done.seen.counts.size(); ++o) {
      for (std::size_t e = 0; e < kinds; ++e)
        others[e] += o == m ? 0 : done.seen.counts[o][e];
    }
    const Batch batch = batch_of(Index(m), 1);
    Decoder<float>::Tape tape;
    const Pass pass{.batch = batch,
                    .training = true,
                    .loss_scale = 1.0 / double(done.seen.counts.size()),
                    .other_counts = others};
    model.forward(pass, tape);
    model.backward(pass, tape);
  }
  double sum = 0;
  for (auto* p : model.parameters())
    sum += backend->sum_squares(p->grad());
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE(
    "scope=global is the load of all micro-batches of a step, and of those so far in a lane") {
  const GlobalRun four("global", 4, 4);
  REQUIRE(four.seen.counts.size() == 4);
  const double global = four.expected([](auto, auto) { return true; });
  CHECK(four.result.layer[0].losses[0] == Approx(global).epsilon(1e-12));
  CHECK(four.result.gradient_norm == Approx(norm_by_hand(four)).epsilon(1e-5));
  const GlobalRun one_lane("global", 4, 1);
  const double so_far = one_lane.expected([](auto m, auto other) { return other <= m; });
  CHECK(one_lane.result.layer[0].losses[0] == Approx(so_far).epsilon(1e-12));
  const GlobalRun two("global", 4, 2);  // the first micro-batch of both lanes, then the second
  const double by_round = two.expected([](auto m, auto other) { return other % 2 <= m % 2; });
  CHECK(two.result.layer[0].losses[0] == Approx(by_round).epsilon(1e-12));
  const GlobalRun batch("batch", 4, 4);
  CHECK(std::abs(batch.result.layer[0].losses[0] - global) > 1e-3);
  CHECK(std::abs(batch.result.gradient_norm - four.result.gradient_norm) >
        1e-4 * four.result.gradient_norm);
  CHECK(GlobalRun("global", 1, 1).result.gradient_norm ==
        GlobalRun("batch", 1, 1).result.gradient_norm);
}
