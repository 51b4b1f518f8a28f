// moe bench decode: tokens a second of models in files, one at a time, beside the rate at which the
// machine reads memory in the same run: what decoding is bound by.
#include <cmath>
#include <optional>

#include "apps/bench/bench.h"
#include "apps/experts.h"
#include "apps/machine_rates.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "lib/model/decoder.h"
#include "lib/plan/storage.h"
#include "lib/run/run_folder.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> models;
  std::string activations;
  BenchOptions bench;
};

// Bytes of weights that a token reads once, as the file holds them.
double bytes_a_token(const std::string& path, const ModelConfig& config) {
  const plan::Storage storage = plan::own_storage_of_path(path);
  double out = 0;
  for (const WeightPiece& p : pieces(architecture_of(resolved(config)))) {
    if (p.part != ModelPart::embedding || p.multiplied)
      out += storage.bytes(p) * p.active;
  }
  return out;
}

struct Measured {
  double load = 0, bytes = 0;
  bool rounds = false;
  Timing token;
};

Measured measured(const std::string& path, double seconds, const Holding& holding,
                  Backend<float>& device) {
  Measured out;
  std::optional<LoadedModel> loaded;
  out.load = seconds_of([&] { loaded = load_model(path, device, {.holding = holding}); });
  out.bytes = bytes_a_token(path, loaded->model->config());
  out.rounds = rounding_matrices(*loaded->model) > 0;
  out.token.seconds = decode_times(*loaded->model, device, seconds);
  return out;
}

void add_row(Rows& rows, const std::string& path, int threads, const Measured& m, double reading) {
  const double rate = m.bytes / m.token.median();
  rows.next();
  rows.text("model", path);
  rows.whole("threads", threads);
  rows.text("activations", m.rounds ? "int8" : "exact");
  rows.number("open", "s", "from the name to a model that decodes", m.load, 2);
  rows.number("tokens_per_s", "tok/s", "one after the other, the median", 1 / m.token.median(), 1);
  rows.number("weights", "MB", "that a token reads once, as the file holds them", m.bytes * 1e-6,
              1);
  rows.number("read", "GB/s", "those bytes over the time of a token", rate * 1e-9, 1);
  rows.number("memory", "GB/s", "a loop that only reads, in this run", reading * 1e-9, 1);
  rows.number("share", "", "of the rate of that loop", rate / reading, 2);
  add_times(rows, m.token);
}

int decode(const Options& o) {
  const auto device = open_device(o.bench.device);
  Rows rows;
  std::vector<Timing> times;
  for (const std::string& path : o.models) {
    for (const int threads : o.bench.threads) {
      if (stop_signal())
        break;
      set_threads(threads);
      const double reading = memory_read_rate();
      const Holding in_files{.numbers = Keep::in_files, .activations = activations(o.activations)};
      const Measured m = measured(path, o.bench.seconds, in_files, *device);
      add_row(rows, path, threads, m, reading);
      times.push_back(m.token);
    }
  }
  return write_bench(std::move(rows).table(
                         "decode", "Decoding, a token at a time",
                         "A token reads the weights that are active for it once: bytes of these "
                         "over the rate at which memory is read are the least time it can take."),
                     "Decoding", times, o.bench);
}

}  // namespace

Run bench_decode(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("MODEL", o->models, "runs, checkpoints, Hugging Face folders, GGUF files")
      .required();
  add_activations(cli, o->activations);
  add_bench(cli, o->bench);
  return [o] {
    settle(o->bench);
    return decode(*o);
  };
}

}  // namespace moe
