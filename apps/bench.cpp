// moe bench: how fast the operations of a device are, the same cases that `moe verify` holds to the definition, at sizes worth timing.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/version.h"
#include "lib/check/check.h"
#include "lib/core/parallel.h"

namespace moe {
namespace {

struct Options {
  std::string only;
  double seconds = 0.5;
  DeviceOptions device;
  OutputOptions out;
};

double seconds_of(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Times of single runs after one to warm up: at least three, and for about as long as asked.
std::vector<double> times_of(const std::function<void()>& run, double budget) {
  run();
  std::vector<double> out;
  for (double spent = 0; out.size() < 3 || (spent < budget && out.size() < 1000); spent += out.back()) out.push_back(seconds_of(run));
  std::ranges::sort(out);
  return out;
}

int bench(const Options& o) {
  const auto device = open_device(o.device);
  std::vector<std::string> name, shape;
  std::vector<double> median, best, spread, gflops, gbytes;
  const auto all = bench_cases();
  Progress progress("cases", double(all.size()), "case");
  catch_stop_signals();
  for (std::size_t i = 0; i < all.size() && !stop_signal(); ++i) {
    const Case& c = all[i];
    if (!o.only.empty() && c.operation.find(o.only) == std::string::npos) continue;
    const Trial trial = c.prepare(*device);
    const auto t = times_of(trial.run, o.seconds);
    const double middle = t[t.size() / 2];
    name.push_back(c.operation), shape.push_back(c.shape), median.push_back(middle * 1e3), best.push_back(t.front() * 1e3);
    spread.push_back(100 * (t[t.size() * 3 / 4] - t[t.size() / 4]) / middle);
    gflops.push_back(c.flops > 0 ? c.flops / middle * 1e-9 : NAN), gbytes.push_back(c.bytes > 0 ? c.bytes / middle * 1e-9 : NAN);
    progress.update(double(i + 1), c.operation);
  }
  if (name.empty()) throw Error(Exit::usage, concat("no operation has '", o.only, "' in its name")).hint("moe bench times all of them");
  Report report{.title = fmt::format("{}: {} operations, {} threads", device->name(), name.size(), threads())};
  report.facts = {{"moe", version_short()}, {"command", command_line()}};
  Table t{.id = "bench", .title = "Operations", .reading = "One run each, after one to warm up. GFLOP/s counts a multiply-add as 2."};
  t.columns = {{.name = "operation", .cells = name}, {.name = "shape", .cells = shape}, {.name = "median", .unit = "ms", .cells = median}, {.name = "best", .unit = "ms", .cells = best},
               {.name = "spread", .unit = "%", .meaning = "between the quartiles, of the median", .cells = spread, .digits = 0},
               {.name = "gflops", .unit = "GFLOP/s", .cells = gflops, .digits = 1}, {.name = "gbytes", .unit = "GB/s", .meaning = "bytes read and written at least", .cells = gbytes, .digits = 1}};
  if (std::ranges::any_of(spread, [](double s) { return s > 25; })) t.warnings.push_back("Some times spread by more than 25 %: something else is running on this machine, or the case is too short.");
  report.tables.push_back(t);
  write_report(report, o.out);
  return stop_signal() ? 128 + stop_signal() : 0;
}

}  // namespace

Run bench_command(CLI::App& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("only", o->only, "operations whose name holds this word: linear, attention, layer, ...");
  cli.add_option("--seconds", o->seconds, "time for each operation")->capture_default_str()->check(CLI::Range(0.001, 600.0));
  add_device(cli, o->device);
  add_output(cli, o->out, "where the table goes");
  return [o] { return bench(*o); };
}

}  // namespace moe
