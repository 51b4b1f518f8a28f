// moe bench model: a whole training step of a preset, on random tokens: forward, with backward, and
// with clipping and AdamW.
#include <algorithm>
#include <memory>

#include "apps/bench/bench.h"
#include "apps/bench/tokens.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/model/cost.h"
#include "lib/model/trainer.h"
#include "lib/router/router.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> model;
  std::vector<std::string> only;
  Index sequences = 8, length = 0;
  BenchOptions bench;
};

struct Row {
  const std::string& model;
  Index tokens;
  int threads;
  const char* dtype;
  const char* pass;
  double flops;  // of the pass
};

void add_row(Rows& rows, const Row& r, const Timing& t, double ceiling, double memory,
             double planned) {
  rows.next();
  rows.text("model", r.model);
  rows.whole("tokens", r.tokens);
  rows.text("dtype", r.dtype);
  rows.whole("threads", r.threads);
  rows.text("pass", r.pass);
  add_times(rows, t);
  rows.number("tokens_per_s", "tok/s", "", double(r.tokens) / t.median(), 0);
  rows.number("gflops", "GFLOP/s",
              "products of the layers, attention at full context, output matrix",
              r.flops / t.median() * 1e-9);
  rows.number("ceiling_gflops", "GFLOP/s",
              "three dense products of an expert's shape for all choices, best of 5 or more",
              ceiling);
  rows.number("ratio", "x", "gflops over ceiling_gflops", r.flops / t.median() * 1e-9 / ceiling, 3);
  rows.number("memory", "MiB", "peak of the process while this row ran", memory / 1048576, 0);
  rows.number("planned", "MiB",
              "what moe train --dry-run says of a step, program and scratch left out",
              planned / 1048576, 0);
}

// A model with a batch, and what is timed of it.
class Bench {
 public:
  Bench(const ModelConfig& c, Backend<float>& device, Index sequences, Index length)
      : batch_(random_batch(c, sequences, length)),
        model_(c, device),
        trainer_(model_, options(sequences, length), comm_) {
    model_.initialise(1);
  }
  void forward() {
    Rng rng(1);
    Decoder<float>::Tape tape;
    model_.infer({.batch = batch_, .rng = &rng}, tape);
  }
  void both() {
    Rng rng(1);
    Decoder<float>::Tape tape;
    const Pass pass{.batch = batch_, .training = true, .rng = &rng};
    model_.forward(pass, tape);
    model_.backward(pass, tape);
  }
  void step() {
    trainer_.step([&](std::uint64_t) { return batch_; }, false);
  }

 private:
  static TrainOptions options(Index sequences, Index length) {
    return {.steps = 1'000'000,
            .sequences = sequences,
            .length = length,
            .lr = 1e-5,
            .schedule = "constant"};
  }
  Batch batch_;
  Decoder<float> model_;
  Solo comm_;
  Trainer trainer_;
};

struct BenchedPass {
  const char* name;
  double flops;
  std::function<void()> run;
};

// The passes that are asked for.
std::vector<BenchedPass> passes_of(Bench& bench, const Options& o, double forward_flops) {
  std::vector<BenchedPass> all = {
      {"forward", forward_flops,
       [&] {
         bench.forward();
       }},
      {"forward+backward", 3 * forward_flops,
       [&] {
         bench.both();
       }},
      {"step", 3 * forward_flops,
       [&] {
         bench.step();
       }},
  };
  std::erase_if(all, [&](const BenchedPass& p) {
    return !o.only.empty() && std::ranges::find(o.only, p.name) == o.only.end();
  });
  return all;
}

// Speed that the device's products could reach on the experts of this model.
double model_ceiling(const ModelConfig& c, Index tokens, Backend<float>& device) {
  const int k = c.dense ? 1 : make_router(c.moe.router, c.moe.experts)->choices();
  return ceiling_gflops(device, tokens * k, c.hidden,
                        c.dense ? c.dense_baseline_width() : c.moe.width);
}

// One row for each pass.
void bench_model(const std::string& spec, int threads, const Options& o, Backend<float>& device,
                 Rows& rows, std::vector<Timing>& times) {
  set_threads(threads);
  const ModelConfig c = model_config(spec);
  const Index length = o.length > 0 ? o.length : c.context;
  const Index tokens = o.sequences * length;
  if (length > c.context) {
    throw Error(Exit::usage, concat("--length ", length, " is longer than the context of ", spec,
                                    ", ", c.context));
  }
  const ModelCost cost = cost_of(c, tokens);
  const double ceiling = model_ceiling(c, tokens, device);
  Bench bench(c, device, o.sequences, length);
  reset_peak_memory();
  const auto passes = passes_of(bench, o, cost.flops_per_token_forward * double(tokens));
  std::vector<std::function<void()>> runs;
  for (const BenchedPass& p : passes)
    runs.push_back(p.run);
  const auto t = time_in_turn(device, runs, o.bench.seconds);
  const double memory = peak_memory();
  const double planned = double(cost.weight_bytes + cost.optimizer_bytes + cost.activation_bytes);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    add_row(rows, {spec, tokens, threads, device_dtype(device), passes[i].name, passes[i].flops},
            t[i], ceiling, memory, planned);
  }
  times.insert(times.end(), t.begin(), t.end());
}

int model(const Options& o) {
  const auto device = open_device(o.bench.device);
  Rows rows;
  std::vector<Timing> times;
  Progress progress("models", double(o.model.size() * o.bench.threads.size()), "model");
  double done = 0;
  for (const std::string& m : o.model) {
    for (const int threads : o.bench.threads) {
      if (stop_signal())
        break;
      bench_model(m, threads, o, *device, rows, times);
      progress.update(++done, m);
    }
  }
  return write_bench(
      std::move(rows).table(
          "model", "Model",
          "A step is forward, backward, clipping and AdamW on one batch of random tokens."),
      concat("Training steps on ", device->name()), times, o.bench);
}

}  // namespace

Run bench_model(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("--model", o->model,
                 "preset, and fields over it; may be given again (moe list models)")
      .type_name("SPEC")
      .repeatable()
      .show_default("tiny");
  cli.add_option("--batch", o->sequences, "sequences of a batch").show_default().check(whole(1));
  cli.add_option("--length", o->length, "tokens of a sequence; 0 = the model's context")
      .show_default()
      .check(whole(0));
  cli.add_option("--only", o->only,
                 "forward, forward+backward or step; may be given again; all where left out")
      .type_name("PASS")
      .repeatable()
      .check(one_of({"forward", "forward+backward", "step"}));
  add_bench(cli, o->bench);
  return [o] {
    settle(o->bench);
    if (o->model.empty())
      o->model = {"tiny"};
    return model(*o);
  };
}

}  // namespace moe
