// moe bench machine: what this machine does, for plans: products by rows, weights read by
// decoding, memory, a disk, and what a layer takes besides. --verify holds the predictions made of
// it to what decoding really takes.
#include <fmt/format.h>

#include <cmath>

#include "apps/arguments.h"
#include "apps/bench/bench.h"
#include "apps/machine_rates.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct Options {
  std::string disk, disk_size = "256MiB";
  bool verify = false;
  double seconds = 0.2;
  DeviceOptions device;
  OutputOptions out;
};

constexpr double allowed = 15;  // % that a prediction of decoding may be off

// Five models that lie differently: small and large, few and many choices, narrow and wide experts.
constexpr const char* shapes[] = {
    "small:hidden=256,layers=4,width=512,experts=8,heads=4,kv_heads=2,context=512",
    "small:hidden=512,layers=6,width=1024,experts=8,heads=8,kv_heads=2,context=512",
    "small:hidden=512,layers=8,width=128,experts=64,heads=8,kv_heads=2,context=512,router={softmax:"
    "k=8}",
    "small:hidden=768,layers=6,width=1536,experts=8,heads=12,kv_heads=4,context=512,router={"
    "softmax:"
    "k=1}",
    "small:hidden=1024,layers=4,width=2048,experts=4,heads=16,kv_heads=4,context=512"};

Table products_table(const MachineRates& r) {
  Rows rows;
  for (const RatePoint& p : r.products) {
    rows.next();
    rows.whole("rows", std::int64_t(p.x));
    rows.number("products", "GFLOP/s", "with a (1024,1024) matrix", p.rate * 1e-9);
  }
  return std::move(rows).table(
      "products", "Products by their rows",
      "What a product reaches depends on how many rows it has. All times here are those that a "
      "tenth of the runs stay below.");
}
Table reads_table(const MachineRates& r) {
  Rows rows;
  for (const RatePoint& p : r.reads) {
    rows.next();
    rows.number("weights", "MiB", "that products of one row go through in turn", p.x / 1048576, 2);
    rows.number("read", "GB/s", "bytes of weights over time", p.rate * 1e-9, 2);
  }
  return std::move(rows).table("reads", "Weights read by decoding",
                               "Products of one row. Where the weights fit a cache they are read "
                               "faster than memory.");
}
Table rest_table(const MachineRates& r) {
  Rows rows;
  const auto row = [&](const char* what, const char* unit, double value) {
    rows.next();
    rows.text("what", what);
    rows.number("value", "", "", value, 2);
    rows.text("unit", unit);
  };
  row("memory, y += x", "GB/s", r.memory * 1e-9);
  row("a layer besides its weights, decoding", "us", r.layer_s * 1e6);
  row("an expert besides its weights, decoding", "us", r.choice_s * 1e6);
  return std::move(rows).table(
      "rest", "Memory, and what decoding takes besides reading",
      "Of models whose weights fit a cache, with 1 and with 8 of 16 experts.");
}
Table disk_table(const std::vector<DiskRate>& rates) {
  Rows rows;
  for (const DiskRate& d : rates) {
    rows.next();
    rows.text("block", bytes_text(d.block));
    rows.number("in order", "MB/s", "", d.in_order * 1e-6);
    rows.number("scattered", "MB/s", "at random places", d.scattered * 1e-6);
  }
  return std::move(rows).table("disk", "Disk, read past the page cache",
                               "One read at a time (O_DIRECT), as one expert after the other.");
}

// Whether every prediction was within what is allowed.
bool add_verification(Report& report, const MachineRates& r, Backend<float>& b, double seconds) {
  Rows rows;
  int off = 0;
  for (const char* shape : shapes) {
    const ModelConfig c = model_config(shape);
    const double predicted = predicted_decode(c, r);
    const double measured = measured_decode(c, b, 5 * seconds);
    const double error = 100 * (predicted / measured - 1);
    off += std::abs(error) > allowed;
    rows.next();
    rows.text("model", shape);
    rows.number("predicted", "tok/s", "", 1 / predicted);
    rows.number("measured", "tok/s", "weights drawn", 1 / measured);
    rows.number("error", "%", "predicted over measured time, less one", error);
  }
  report.tables.push_back(std::move(rows).table(
      "verify", "Decoding, predicted and measured",
      "One token at a time in f32, as moe generate computes it; predicted from the tables above."));
  const auto count = std::ssize(shapes);
  const std::string verdict =
      fmt::format("{} of {} predictions are within {} %.", count - off, count, allowed);
  if (off > 0)
    report.warnings.push_back(verdict +
                              " Predictions of this machine cannot be relied on: "
                              "something else may be running on it.");
  else
    report.findings.push_back({verdict, {{.table = "verify", .column = "error", .rows = 5}}});
  return off == 0;
}

int machine(const Options& o) {
  check_output(o.out);
  const auto device = open_device(o.device);
  const MachineRates r = measure_machine(*device, o.seconds);
  Report report{.title = concat("This machine, ", std::string(device->name()))};
  report.facts = {{"moe", version_short()},
                  {"command", command_line()},
                  {"threads", std::to_string(r.threads)}};
  report.tables = {products_table(r), reads_table(r), rest_table(r)};
  if (!o.disk.empty())
    report.tables.push_back(
        disk_table(measure_disk(o.disk, parse_size(o.disk_size, "--disk-size"), o.seconds)));
  const bool held = !o.verify || add_verification(report, r, *device, o.seconds);
  write_report(report, o.out);
  return stop_signal() ? 128 + stop_signal() : held ? 0 : 1;
}

}  // namespace

Run bench_machine(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("--seconds", o->seconds, "time for each of some twenty measurements")
      .show_default()
      .check(real(0.01, 60));
  cli.add_option("--disk", o->disk, "measure the disk of this folder as well").type_name("FOLDER");
  cli.add_option("--disk-size", o->disk_size, "of the file that is written there and read")
      .type_name("SIZE")
      .show_default();
  cli.add_flag("--verify", o->verify,
               "hold predictions of decoding five models to what they really take; exit code 1 "
               "where one is off by more than 15 %");
  add_device(cli, o->device);
  add_output(cli, o->out, "where the tables go");
  return [o] {
    return machine(*o);
  };
}

}  // namespace moe
