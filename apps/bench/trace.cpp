// moe bench trace: a forward pass without and with its routing recorded to a file, in turn: what
// the recording costs.
#include <cmath>
#include <filesystem>
#include <memory>

#include "apps/bench/bench.h"
#include "apps/bench/tokens.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/run/recorder.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> model;
  Index sequences = 16;
  std::string folder;
  BenchOptions bench;
};

void add_row(Rows& rows, const std::string& model, Index tokens, int threads, const char* pass,
             const Timing& t, double slower, double bytes) {
  rows.next();
  rows.text("model", model);
  rows.whole("tokens", tokens);
  rows.whole("threads", threads);
  rows.text("pass", pass);
  add_times(rows, t);
  rows.number("tokens_per_s", "tok/s", "", double(tokens) / t.median(), 0);
  rows.number("cost", "%", "more time than without recording, median against median", slower);
  rows.number("bytes_per_token", "B", "of the trace, routing logits included", bytes);
}

// A forward pass of one batch, with or without recording it into a trace in `folder`.
class Bench {
 public:
  Bench(const ModelConfig& c, const Options& o, Backend<float>& device)
      : model_(drawn(c, device)),
        batch_(random_batch(c, o.sequences, c.context)),
        file_(std::filesystem::path(o.folder) /
              concat("moe-bench-", fresh_parameter_id(), ".moetrace.h5")),
        fields_(trace_fields(*model_)),
        writer_(std::in_place, file_, trace_header(*model_),
                TraceWriterOptions{.force = true, .fields = fields_}) {}

  void forward() {
    Rng rng(1);
    Decoder<float>::Tape tape;
    model_->infer({.batch = batch_, .rng = &rng}, tape);
  }
  void recorded() {
    Rng rng(1);
    Decoder<float>::Tape tape;
    BatchRows rows(batch_, 0, -1);
    model_->infer(
        {.batch = batch_, .rng = &rng}, tape,
        [&](int n, const MoeTape<float>& t, View<const float>) { rows.layer(n, t, fields_); });
    rows.predictions(tape);
    writer_->step({.step = step_++, .phase = Phase::eval});
    rows.append(*writer_);
  }
  Index tokens() const {
    return batch_.tokens();
  }
  // Ends and removes the trace; returns how many bytes it took a token.
  double bytes_per_token() {
    writer_->finish();
    writer_.reset();
    const double bytes = double(std::filesystem::file_size(file_));
    std::filesystem::remove(file_);
    return bytes / double(step_ * tokens());
  }

 private:
  static std::unique_ptr<Decoder<float>> drawn(const ModelConfig& c, Backend<float>& device) {
    auto model = std::make_unique<Decoder<float>>(c, device);
    model->initialise(1);
    return model;
  }
  std::unique_ptr<Decoder<float>> model_;
  Batch batch_;
  std::filesystem::path file_;
  TraceFields fields_;
  std::optional<TraceWriter> writer_;
  std::int64_t step_ = 0;
};

void bench_model(const std::string& spec, int threads, const Options& o, Backend<float>& device,
                 Rows& rows, std::vector<Timing>& times) {
  set_threads(threads);
  const ModelConfig c = model_config(spec);
  if (c.dense || c.moe_layers() == 0)
    throw Error(Exit::usage, concat(spec, " is dense: it has no routing to record"));
  Bench bench(c, o, device);
  const auto t = time_in_turn(device,
                              {[&] { bench.forward(); },
                               [&] {
                                 bench.recorded();
                               }},
                              o.bench.seconds);
  const double bytes = bench.bytes_per_token();
  const double slower = 100 * (t[1].median() / t[0].median() - 1);
  add_row(rows, spec, bench.tokens(), threads, "forward", t[0], NAN, NAN);
  add_row(rows, spec, bench.tokens(), threads, "forward+trace", t[1], slower, bytes);
  times.insert(times.end(), t.begin(), t.end());
}

int trace(const Options& o) {
  const auto device = open_device(o.bench.device);
  Rows rows;
  std::vector<Timing> times;
  for (const std::string& m : o.model) {
    for (const int threads : o.bench.threads) {
      if (!stop_signal())
        bench_model(m, threads, o, *device, rows, times);
    }
  }
  return write_bench(
      std::move(rows).table("trace", "Trace",
                            "The same forward pass, once as it is and once recorded, in turn."),
      concat("Recording on ", device->name()), times, o.bench);
}

}  // namespace

Run bench_trace(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("--model", o->model,
                 "preset, and fields over it; may be given again (moe list models)")
      .type_name("SPEC")
      .repeatable()
      .show_default("tiny");
  cli.add_option("--batch", o->sequences,
                 "sequences of a batch, each as long as the model's context")
      .show_default()
      .check(whole(1));
  cli.add_option(
         "--folder", o->folder,
         "where the trace is written meanwhile; default: the system's folder for temporary files")
      .type_name("FOLDER");
  o->bench.seconds = 3;
  add_bench(cli, o->bench);
  return [o] {
    settle(o->bench);
    if (o->model.empty())
      o->model = {"tiny"};
    if (o->folder.empty())
      o->folder = std::filesystem::temp_directory_path().string();
    return trace(*o);
  };
}

}  // namespace moe
