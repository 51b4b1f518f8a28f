// moe bench: one verb, a table of subjects, and what they share.
#include "apps/bench/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <memory>

#include "apps/arguments.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "lib/backend/on_device.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "lib/layer/parameter.h"

namespace moe {

#define BENCH(name, about, examples) Command bench_##name;
#include "apps/bench/benches.def"
#undef BENCH

const Registry<Command>& benches() {
  static const Registry<Command> all("bench", {
#define BENCH(name, about, examples) {#name, about, examples, bench_##name},
#include "apps/bench/benches.def"
#undef BENCH
                                              });
  return all;
}

double Timing::quantile(double q) const {
  const auto n = double(seconds.size());
  return seconds[std::size_t(std::clamp(std::ceil(q * n) - 1, 0.0, n - 1))];
}
double Timing::spread() const {
  return 100 * (quantile(0.75) - quantile(0.25)) / median();
}

double seconds_of(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double seconds_of(Backend<float>& b, const std::function<void()>& run) {
  b.wait();  // for what is still under way
  return seconds_of([&] {
    run();
    b.wait();
  });
}

std::vector<Timing> time_in_turn(const std::vector<std::function<void()>>& runs, double budget) {
  std::vector<Timing> out(runs.size());
  for (const auto& run : runs)
    run();
  double spent = 0;
  for (int round = 0; round < 3 || (spent < budget * double(runs.size()) && round < 1000);
       ++round) {
    for (std::size_t i = 0; i < runs.size(); ++i) {
      out[i].seconds.push_back(seconds_of(runs[i]));
      spent += out[i].seconds.back();
    }
  }
  for (Timing& t : out)
    std::ranges::sort(t.seconds);
  return out;
}
std::vector<Timing> time_in_turn(Backend<float>& b, const std::vector<std::function<void()>>& runs,
                                 double budget) {
  std::vector<std::function<void()>> whole;
  for (const auto& run : runs) {
    whole.emplace_back([&b, &run] {
      run();
      b.wait();
    });
  }
  return time_in_turn(whole, budget);
}

namespace {
// FLOPs of one run over the time of the fastest.
double best_gflops(Backend<float>& b, double flops, const std::function<void()>& products) {
  products();
  double best = INFINITY;
  double spent = 0;
  // small ones more often: a single disturbance must not lower the ceiling
  for (int i = 0; i < 5 || (spent < 0.1 && i < 1000); ++i) {
    const double t = seconds_of(b, products);
    best = std::min(best, t);
    spent += t;
  }
  return flops / best * 1e-9;
}
}  // namespace

double ceiling_gflops(Backend<float>& b, Index rows, Index hidden, Index width, bool backward) {
  const double flops = 6.0 * double(rows) * double(hidden) * double(width);
  if (auto* device = dynamic_cast<OnDevice<float>*>(&b)) {
    if (const auto products = device->plain_products(rows, hidden, width, backward))
      return best_gflops(b, backward ? 3 * flops : flops, products);
  }
  // The numbers do not matter to the time as long as they are ordinary ones.
  Parameter<float> up(b, "up", {width, hidden});
  Parameter<float> down(b, "down", {hidden, width});
  up.set(Matrix<float>(width, hidden, 0.01f).view());
  down.set(Matrix<float>(hidden, width, 0.01f).view());
  const Array<float> x(b, Matrix<float>(rows, hidden, 0.5f).view());
  Array<float> h = Array<float>::zeros(b, rows, width);
  Array<float> y = Array<float>::zeros(b, rows, hidden);
  return best_gflops(b, flops, [&] {
    for (int i = 0; i < 2; ++i)
      b.linear(x.view(), up.weight(), h.view(), 0);
    b.linear(std::as_const(h).view(), down.weight(), y.view(), 0);
  });
}

double memory_gbytes(Backend<float>& b) {
  constexpr Index rows = 8192;
  constexpr Index cols = 4096;  // 128 MiB each
  const Array<float> x = Array<float>::zeros(b, rows, cols);
  Array<float> y = Array<float>::zeros(b, rows, cols);
  double best = INFINITY;
  for (int i = 0; i < 6; ++i) {
    const double t = seconds_of(b, [&] { b.add(x.view(), y.view(), 1); });
    if (i > 0)
      best = std::min(best, t);
  }
  return 3.0 * sizeof(float) * double(rows * cols) / best * 1e-9;
}

void reset_peak_memory() {
  std::ofstream("/proc/self/clear_refs") << "5";
}
double peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:"))
      return 1024 * std::stod(line.substr(6));
  }
  return NAN;
}

Column& Rows::column(const char* name) {
  for (Column& c : columns_) {
    if (c.name == name)
      return c;
  }
  return columns_.emplace_back(Column{.name = name});
}
void Rows::text(const char* name, std::string value) {
  Column& c = column(name);
  if (!std::holds_alternative<std::vector<std::string>>(c.cells))
    c.cells = std::vector<std::string>{};
  std::get<std::vector<std::string>>(c.cells).push_back(std::move(value));
}
void Rows::whole(const char* name, std::int64_t value) {
  std::get<std::vector<std::int64_t>>(column(name).cells).push_back(value);
}
void Rows::number(const char* name, const char* unit, const char* meaning, double value,
                  int digits) {
  Column& c = column(name);
  if (!std::holds_alternative<std::vector<double>>(c.cells)) {
    c.cells = std::vector<double>{};
    c.unit = unit;
    c.meaning = meaning;
    c.digits = digits;
  }
  std::get<std::vector<double>>(c.cells).push_back(value);
}
Table Rows::table(std::string id, std::string title, std::string reading) && {
  return {.id = std::move(id),
          .title = std::move(title),
          .reading = std::move(reading),
          .columns = std::move(columns_)};
}

void add_times(Rows& rows, const Timing& t) {
  rows.number("median", "ms", "", t.median() * 1e3, 3);
  rows.number("best", "ms", "", t.best() * 1e3, 3);
  rows.number("p99", "ms", "99 % of the runs were faster", t.quantile(0.99) * 1e3, 3);
  rows.number("spread", "%", "between the quartiles, of the median", t.spread(), 0);
}

void add_bench_on_host(CommandLine& cli, BenchOptions& o) {
  cli.add_option("--seconds", o.seconds, "time for each row")
      .show_default()
      .check(real(0.001, 600));
  cli.add_option("--threads", o.threads,
                 "threads of the host; may be given again for a sweep; all cores where left out")
      .type_name("N")
      .repeatable()
      .check(whole(1, 1024));
  add_output(cli, o.out, "where the table goes");
}
void add_bench(CommandLine& cli, BenchOptions& o) {
  add_bench_on_host(cli, o);
  add_device_name(cli, o.device);
}

void settle(BenchOptions& o) {
  if (o.threads.empty())
    o.threads = {threads()};
  check_output(o.out);
}

int write_bench(Table table, std::string title, const std::vector<Timing>& times,
                const BenchOptions& o) {
  Report report{.title = std::move(title)};
  report.facts = {{"moe", version_short()}, {"command", command_line()}};
  if (std::ranges::any_of(times, [](const Timing& t) { return t.spread() > 25; })) {
    table.warnings.push_back(
        "Some times spread by more than 25 %: something else is running on this machine, or the "
        "case is too short.");
  }
  report.tables.push_back(std::move(table));
  OutputOptions out = o.out;
  if (format_for(out) == "json")
    out.format = "jsonl";
  write_report(report, out);
  return stop_signal() ? 128 + stop_signal() : 0;
}

Run bench_command(CommandLine& cli) {
  auto ready = std::make_shared<std::vector<std::pair<CommandLine, Run>>>();
  for (const auto& entry : benches().entries()) {
    std::string footer = "examples:";
    for (const std::string& e : split(entry.examples, '|'))
      footer += "\n  moe " + e;
    CommandLine subject =
        cli.add_subject(std::string(entry.name), std::string(entry.about), footer);
    ready->emplace_back(subject, entry.make(subject));
  }
  return [ready] {
    catch_stop_signals();
    for (auto& [subject, go] : *ready) {
      if (subject.parsed())
        return go();
    }
    return 2;
  };
}

}  // namespace moe
