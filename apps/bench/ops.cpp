// moe bench ops: how fast the operations of a device are, the same cases that `moe verify` holds to
// the definition, at sizes worth timing.
#include <cmath>
#include <memory>

#include "apps/bench/bench.h"
#include "apps/terminal.h"
#include "lib/check/check.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct Options {
  std::string only;
  BenchOptions bench;
};

void add_row(Rows& rows, const Case& c, int threads, const Timing& t) {
  rows.next();
  rows.text("operation", c.operation);
  rows.text("shape", c.shape);
  rows.whole("threads", threads);
  add_times(rows, t);
  rows.number("gflops", "GFLOP/s", "a multiply-add is 2",
              c.flops > 0 ? c.flops / t.median() * 1e-9 : NAN);
  rows.number("gbytes", "GB/s", "bytes read and written at least",
              c.bytes > 0 ? c.bytes / t.median() * 1e-9 : NAN);
}

int ops(const Options& o) {
  const auto device = open_device(o.bench.device);
  const auto all = bench_cases();
  Rows rows;
  std::vector<Timing> times;
  Progress progress("cases", double(all.size()), "case");
  for (std::size_t i = 0; i < all.size() && !stop_signal(); ++i) {
    const Case& c = all[i];
    if (!o.only.empty() && c.operation.find(o.only) == std::string::npos)
      continue;
    const Trial trial = c.prepare(*device);
    for (const int n : o.bench.threads) {
      set_threads(n);
      add_row(rows, c, n,
              times.emplace_back(time_in_turn(*device, {trial.run}, o.bench.seconds)[0]));
    }
    progress.update(double(i + 1), c.operation);
  }
  if (times.empty() && !stop_signal()) {
    throw Error(Exit::usage, concat("no operation has '", o.only, "' in its name"))
        .hint("moe bench ops times all of them");
  }
  return write_bench(
      std::move(rows).table("ops", "Operations", "Single runs, after one to warm up."),
      concat("Operations of ", device->name()), times, o.bench);
}

}  // namespace

Run bench_ops(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  o->bench.seconds = 0.5;
  cli.add_option("only", o->only,
                 "operations whose name holds this word: linear, attention, layer, ...");
  add_bench(cli, o->bench);
  return [o] {
    settle(o->bench);
    return ops(*o);
  };
}

}  // namespace moe
