// moe bench report: how fast a trace is read and counted: load metrics alone and the default
// report, from an uncompressed and from a deflated file, beside h5py + numpy counting the same
// file. The counts of both sides must be the same.
#include <fmt/format.h>

#include <cmath>
#include <ctime>
#include <filesystem>
#include <memory>

#include "analysis/metric/metric.h"
#include "analysis/synth/synth.h"
#include "apps/bench/bench.h"
#include "apps/bench/peer.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "lib/core/error.h"
#include "lib/core/pages.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> trace;
  SynthShape shape;
  std::string pattern = "zipf:s=0.5", folder, python;
  BenchOptions bench;
};

struct File {
  std::string label;
  fs::path path;
};

// A folder of our own that goes when the bench does.
class Scratch {
 public:
  explicit Scratch(const fs::path& parent) {
    std::string name = (parent / "moe-bench-XXXXXX").string();
    if (!::mkdtemp(name.data())) {
      throw Error(Exit::io, concat("no folder can be made in ", parent.string()))
          .hint("--folder names another");
    }
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const fs::path& path() const {
    return path_;
  }

 private:
  fs::path path_;
};

std::vector<File> made(const Options& o, const fs::path& folder) {
  std::vector<File> out;
  const Synth synth = make_synth(o.pattern, o.shape);
  for (const int deflate : {0, 1}) {
    TraceHeader h;
    h.producer = "moe " + version_short();
    h.model_id = "synthetic " + synth.resolved;
    TraceWriterOptions w;
    w.deflate = deflate;
    out.push_back({deflate ? "deflated" : "uncompressed",
                   folder / (deflate ? "deflated.h5" : "uncompressed.h5")});
    Progress progress("tokens of the " + out.back().label + " trace", double(o.shape.tokens),
                      "tok");
    write_synth(out.back().path, synth, h, w,
                [&](std::uint64_t rows) { progress.update(double(rows)); });
  }
  return out;
}

double assignments_of(const FileTrace& trace) {
  double slots = 0;
  for (const TraceLayer& l : trace.header().layers)
    slots += l.top_k;
  return slots * double(trace.tokens());
}

struct Subject {  // what is timed, as it is shown
  std::string what;
  std::vector<std::string> metrics;
  int sample;
};

void add_row(Rows& rows, const File& f, int threads, const std::string& what, const Timing& t,
             double processor, double assignments) {
  rows.next();
  rows.text("file", f.label);
  rows.number("size", "MB", "of the file", double(fs::file_size(f.path)) * 1e-6);
  rows.number("assignments", "M", "tokens x layers x choices", assignments * 1e-6);
  rows.whole("threads", threads);
  rows.text("what", what);
  add_times(rows, t);
  rows.number("assignments_per_s", "M/s", "median", assignments / t.median() * 1e-6);
  rows.number("processor", "ns", "processor time an assignment, all threads, least of the runs",
              processor / assignments * 1e9, 2);
}

// Processor time is what other programs on the machine disturb least; waiting threads of a parallel
// loop are in it.
std::function<void()> with_processor(std::function<void()> run, double& least) {
  return [run = std::move(run), &least] {
    const std::clock_t start = std::clock();
    run();
    least = std::min(least, double(std::clock() - start) / CLOCKS_PER_SEC);
  };
}

void check_counts(const File& f, const std::vector<std::vector<double>>& theirs) {
  const FileTrace trace(f.path);
  for (const MetricValue& v : measure(trace, {"load"})) {
    if (v.id == "load_counts") {
      for (std::size_t l = 0; l < theirs.size(); ++l) {
        for (std::size_t e = 0; e < theirs[l].size(); ++e) {
          if (const double ours = v.values[l * std::size_t(v.dims[1]) + e];
              !(ours == theirs[l][e])) {
            throw Error(Exit::failed, concat("expert ", e, " of layer ", l, " of ", f.path.string(),
                                             " has ", ours, " assignments for us and ",
                                             theirs[l][e], " for h5py and numpy"));
          }
        }
      }
    }
  }
}

void bench_file(const File& f, const std::string& python, const Options& o, const fs::path& folder,
                Rows& rows, std::vector<Timing>& times) {
  const double n = assignments_of(FileTrace(f.path));
  if (!(n > 0)) {
    throw Error(Exit::input,
                concat("'", f.path.string(), "' holds no assignments: there is nothing to time"));
  }
  const std::vector<Subject> all = {{"load metrics", {"load"}, 0}, {"default report", {}, 600}};
  for (const int threads : o.bench.threads) {
    set_threads(threads);
    std::vector<double> processor(all.size(), INFINITY);
    std::vector<std::function<void()>> runs;
    for (std::size_t i = 0; i < all.size(); ++i) {
      runs.push_back(with_processor(
          [&f, r = all[i]] {
            AnalyzeOptions options;
            options.sample_tokens = r.sample;
            analyze(FileTrace(f.path), r.metrics, options);
          },
          processor[i]));
    }
    const auto t = time_in_turn(runs, o.bench.seconds);
    for (std::size_t i = 0; i < all.size(); ++i)
      add_row(rows, f, threads, all[i].what, t[i], processor[i], n);
    times.insert(times.end(), t.begin(), t.end());
  }
  if (python.empty())
    return;
  const PeerCounts peer = peer_counts(python, folder, f.path, o.bench.seconds);
  check_counts(f, peer.counts);
  add_row(rows, f, 1, "h5py + numpy: counts", peer.wall, peer.processor, n);
  times.push_back(peer.wall);
}

int bench_report_files(const Options& o) {
  keep_pages_of_windows();
  const Scratch scratch(o.folder);
  std::vector<File> files;
  for (const std::string& t : o.trace)
    files.push_back({fs::path(t).filename().string(), t});
  if (files.empty())
    files = made(o, scratch.path());
  const std::string python = python_with_h5py(o.python);
  if (python.empty()) {
    note(
        "no python here imports h5py and numpy: what they take is left out (Debian: apt install "
        "python3-h5py)");
  }
  Rows rows;
  std::vector<Timing> times;
  for (const File& f : files) {
    if (!stop_signal())
      bench_file(f, python, o, scratch.path(), rows, times);
  }
  return write_bench(
      std::move(rows).table(
          "report", "Reading traces",
          concat("The file is opened, read and counted anew in every run; pages of it are in "
                 "memory. Chance values are simulated anew too: a fixed part of the default "
                 "report, large beside a short trace.",
                 python.empty() ? "" : " The counts of h5py + numpy were the same as ours.")),
      "Reports of traces", times, o.bench);
}

}  // namespace

Run bench_report(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  SynthShape& s = o->shape;
  s.tokens = 32768;
  s.layers = 16;
  s.domains = 4;
  const auto count = [&](const char* name, auto& value, const char* about, std::int64_t most) {
    cli.add_option(name, value, about).show_default().check(whole(1, most));
  };
  cli.add_option("--trace", o->trace, "time this trace and make none; may be given again")
      .type_name("FILE")
      .repeatable();
  cli.add_option("--pattern", o->pattern,
                 "how experts of the made-up trace are drawn (moe list patterns)")
      .show_default()
      .type_name("SPEC");
  count("--tokens", s.tokens, "its rows, T", std::int64_t{1} << 40);
  count("--layers", s.layers, "its MoE layers, L", 4096);
  count("--experts", s.experts, "experts of a layer, E", 65534);
  count("--topk", s.k, "choices of a token, K", 65534);
  cli.add_option(
         "--folder", o->folder,
         "where the traces are written meanwhile; default: the system's folder for temporary files")
      .type_name("FOLDER");
  cli.add_option("--python", o->python,
                 "the Python to count with; default: MOE_PYTHON, python3 or /usr/bin/python3, the "
                 "first that has h5py")
      .type_name("PROGRAM");
  o->bench.seconds = 3;
  add_bench_on_host(cli, o->bench);
  return [o] {
    settle(o->bench);
    if (o->folder.empty())
      o->folder = fs::temp_directory_path().string();
    return bench_report_files(*o);
  };
}

}  // namespace moe
