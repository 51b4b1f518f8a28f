// moe bench model: a whole training step of a preset, on random tokens: forward, with backward, and with clipping and AdamW.
#include <cmath>
#include <memory>

#include "apps/bench/bench.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/model/trainer.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> model;
  Index sequences = 8, length = 0;
  BenchOptions bench;
};

Batch random_batch(const ModelConfig& c, Index sequences, Index length) {
  Batch b;
  Rng rng(11);
  for (Index t = 0; t < sequences * length; ++t) b.token.push_back(int(rng.below(c.vocabulary)));
  b.start.assign(1, 0);
  for (Index s = 1; s <= sequences; ++s) b.start.push_back(s * length);
  for (Index t = 0; t < sequences * length; ++t) b.target.push_back((t + 1) % length ? b.token[std::size_t(t + 1)] : -1);
  return b;
}

struct Row {
  const std::string& model;
  Index tokens;
  int threads;
  const char* pass;
  double flops;  // of the pass
};

void add_row(Rows& rows, const Row& r, const Timing& t, double ceiling, double memory, double planned) {
  rows.next();
  rows.text("model", r.model), rows.whole("tokens", r.tokens), rows.text("dtype", "f32"), rows.whole("threads", r.threads), rows.text("pass", r.pass);
  add_times(rows, t);
  rows.number("tokens_per_s", "tok/s", "", double(r.tokens) / t.median(), 0);
  rows.number("gflops", "GFLOP/s", "products of the layers, attention at full context, output matrix", r.flops / t.median() * 1e-9);
  rows.number("ceiling_gflops", "GFLOP/s", "three dense products of an expert's shape for all choices, best of 5", ceiling);
  rows.number("ratio", "x", "gflops over ceiling_gflops", r.flops / t.median() * 1e-9 / ceiling, 3);
  rows.number("memory", "MiB", "peak of the process while this row ran", memory / 1048576, 0);
  rows.number("planned", "MiB", "what moe train --dry-run says of a step, program and scratch left out", planned / 1048576, 0);
}

void bench_model(const std::string& spec, int threads, const Options& o, Backend<float>& device, Rows& rows, std::vector<Timing>& times) {
  set_threads(threads);
  const ModelConfig c = model_config(spec);
  const Index length = o.length > 0 ? o.length : c.context, tokens = o.sequences * length;
  if (length > c.context) throw Error(Exit::usage, concat("--length ", length, " is longer than the context of ", spec, ", ", c.context));
  const Batch batch = random_batch(c, o.sequences, length);
  Decoder<float> model(c, device);
  model.initialise(1);
  Solo comm;
  Trainer trainer(model, {.steps = 1'000'000, .sequences = o.sequences, .length = length, .lr = 1e-5, .schedule = "constant"}, comm);
  const ModelCost cost = cost_of(c, tokens);
  const double flops = cost.flops_per_token_forward * double(tokens);
  const int k = c.dense ? 1 : make_router(c.moe.router, c.moe.experts)->choices();
  const double ceiling = ceiling_gflops(device, tokens * k, c.hidden, c.dense ? c.twin_width() : c.moe.width);
  reset_peak_memory();
  const auto infer = [&] {
    Rng rng(1);
    Decoder<float>::Tape tape;
    model.infer({.batch = batch, .rng = &rng}, tape);
  };
  const auto both = [&] {
    Rng rng(1);
    Decoder<float>::Tape tape;
    const Pass pass{.batch = batch, .training = true, .rng = &rng};
    model.forward(pass, tape);
    model.backward(pass, tape);
  };
  const auto step = [&] { trainer.step([&](std::uint64_t) { return batch; }, false); };
  const auto t = time_in_turn({infer, both, step}, o.bench.seconds);
  const double memory = peak_memory(), planned = double(cost.weight_bytes + cost.optimizer_bytes + cost.activation_bytes);
  const char* pass[] = {"forward", "forward+backward", "step"};
  for (int i = 0; i < 3; ++i) add_row(rows, {spec, tokens, threads, pass[i], i ? 3 * flops : flops}, t[std::size_t(i)], ceiling, memory, planned);
  times.insert(times.end(), t.begin(), t.end());
}

int model(const Options& o) {
  const auto device = open_device(o.bench.device);
  Rows rows;
  std::vector<Timing> times;
  Progress progress("models", double(o.model.size() * o.bench.threads.size()), "model");
  double done = 0;
  for (const std::string& m : o.model)
    for (const int threads : o.bench.threads) {
      if (stop_signal()) break;
      bench_model(m, threads, o, *device, rows, times);
      progress.update(++done, m);
    }
  return write_bench(std::move(rows).table("model", "Model", "A step is forward, backward, clipping and AdamW on one batch of random tokens."), concat("Training steps on ", device->name()), times, o.bench);
}

}  // namespace

Run bench_model(CLI::App& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("--model", o->model, "preset, and fields over it; may be given again (moe list models)")->type_name("SPEC")->expected(1)->take_all()->default_str("tiny");
  cli.add_option("--batch", o->sequences, "sequences of a batch")->capture_default_str()->check(whole(1));
  cli.add_option("--length", o->length, "tokens of a sequence; 0 = the model's context")->capture_default_str()->check(whole(0));
  add_bench(cli, o->bench);
  return [o] {
    settle(o->bench);
    if (o->model.empty()) o->model = {"tiny"};
    return model(*o);
  };
}

}  // namespace moe
