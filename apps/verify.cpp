// moe verify: is it right? A backend against the definition, a trace against its own promises, a
// checkpoint against its manifest, our layer against files of expected values. Exit code 1 where
// something is not.
#include <fmt/format.h>

#include <filesystem>

#include "analysis/golden/golden_metrics.h"
#include "apps/command.h"
#include "apps/experts.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "lib/check/check.h"
#include "lib/checkpoint/folder.h"
#include "lib/checkpoint/manifest.h"
#include "lib/core/error.h"
#include "lib/files/gguf.h"
#include "lib/golden/golden_layer.h"
#include "lib/golden/golden_tokenizers.h"
#include "lib/run/check_training.h"
#include "lib/run/golden_models.h"
#include "lib/trace/reader.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> paths;
  std::string golden;
  DeviceOptions device;
  bool device_given = false;
  OutputOptions out;
};

// Cases of a backend against the definition, a row each.
struct DeviceCases {
  std::vector<std::string> name, shape, state;
  std::vector<double> error, allowed;
  int failed = 0;

  void add(const std::string& what, const std::string& of, double off_by, double may_be,
           bool passed, const std::string& sentence) {
    name.push_back(what);
    shape.push_back(of);
    error.push_back(off_by);
    allowed.push_back(may_be);
    state.push_back(passed ? "passed" : "FAILED " + sentence);
    failed += !passed;
  }
  Table table() const {
    Table t{.id = "cases",
            .title = "Operations",
            .reading =
                "error = squared difference over squared size, against `reference`; of a resumed "
                "run the numbers with other bits. A NaN fails."};
    t.columns = {{.name = "operation", .cells = name},
                 {.name = "shape", .cells = shape},
                 {.name = "error", .cells = error},
                 {.name = "allowed", .cells = allowed},
                 {.name = "result", .cells = state}};
    return t;
  }
};

bool verify_device(const Options& o, Report& report) {
  const auto device = open_device(o.device);
  const auto reference = make_backend("reference");
  DeviceCases rows;
  const auto all = cases();
  Progress progress("cases", double(all.size()), "case");
  for (const Case& c : all) {
    const Verdict v = compare(c, *device, *reference);
    progress.update(double(rows.name.size()));
    rows.add(c.operation, c.shape, v.difference.error, c.allowed, v.passed,
             v.passed ? "" : v.sentence());
  }
  for (const TrainingVerdict& v : check_training(*device, *reference))
    rows.add(v.what, v.of, v.error, v.allowed, v.passed, v.sentence);
  report.title = fmt::format("{} against the definition: {} of {} cases passed", device->name(),
                             int(rows.name.size()) - rows.failed, rows.name.size());
  report.tables.push_back(rows.table());
  return rows.failed == 0;
}

// Files of expected metrics, a row each.
struct MetricFiles {
  std::vector<std::string> name, state, where;
  std::vector<std::int64_t> ids;
  std::vector<double> f64, f32;
  int failed = 0;
  double worst64 = 0, worst32 = 0;  // of those that passed
  std::int64_t compared = 0;        // metrics

  void add(const GoldenMetricResult& r) {
    name.push_back(r.file);
    state.emplace_back(r.passed ? "passed" : "FAILED");
    where.push_back(r.where);
    ids.push_back(r.ids);
    f64.push_back(r.error);
    f32.push_back(r.float_error);
    failed += !r.passed;
    compared += r.ids;
    if (r.passed) {
      worst64 = std::max(worst64, r.error);
      worst32 = std::max(worst32, r.float_error);
    }
  }
  Table table() const {
    Table t{.id = "golden_metrics",
            .title = "Metrics against expected values",
            .reading =
                "Counts and ids must be equal; figures may be off by 1e-10 of max(1, |expected|), "
                "by 1e-5 where a trace stores their input as f32."};
    t.columns = {{.name = "file", .cells = name},       {.name = "result", .cells = state},
                 {.name = "metrics", .cells = ids},     {.name = "f64", .cells = f64},
                 {.name = "through f32", .cells = f32}, {.name = "where or why", .cells = where}};
    return t;
  }
};

bool verify_metrics(const Options& o, Report& report) {
  MetricFiles files;
  for (const GoldenMetricResult& r : verify_golden_metrics(o.golden))
    files.add(r);
  report.title = fmt::format(
      "{}: {} of {} files passed, {} metrics compared; largest error {:.1e}, {:.1e} through "
      "numbers stored as f32",
      o.golden, int(files.name.size()) - files.failed, files.name.size(), files.compared,
      files.worst64, files.worst32);
  report.tables.push_back(files.table());
  return files.failed == 0;
}

// The sentence without the folder of its case, which stands beside it.
std::string without_folder(std::string sentence, const std::filesystem::path& folder) {
  const std::string text = folder.string() + "/";
  for (auto at = sentence.find(text); at != sentence.npos; at = sentence.find(text, at))
    sentence.erase(at, text.size());
  return sentence;
}

// Of the case "bad/NAME", where `golden` is the folder above bad, bad, or the case.
std::filesystem::path folder_of(const std::string& golden, const std::string& name) {
  std::filesystem::path path = std::filesystem::path(golden) / "";
  path = path.parent_path();
  if (path.filename() == "bad")
    return path / name;
  return path.parent_path().filename() == "bad" ? path : path / "bad" / name;
}

Table malformed_table(const std::string& golden, const std::vector<GoldenModelResult>& all) {
  std::vector<std::string> name, state, said;
  for (const GoldenModelResult& r : all) {
    name.push_back(r.name.substr(4));
    state.emplace_back(r.passed ? "passed" : "FAILED");
    said.push_back(r.why.empty() ? "read without a word"
                                 : without_folder(r.why, folder_of(golden, name.back())));
  }
  Table t{.id = "malformed",
          .title = "Malformed checkpoints",
          .reading =
              "What was said of each: right is an error or a warning that names what is wrong, and "
              "for one that can be read all the same its logits."};
  t.columns = {{.name = "case", .cells = name},
               {.name = "result", .cells = state},
               {.name = "what was said", .cells = said}};
  return t;
}

// Published checkpoints, a row each.
struct ModelCases {
  std::vector<std::string> name, family, state, experts;
  std::vector<double> logits, allowed, router, hidden, output, encoders, loss;

  void add(const GoldenModelResult& r) {
    const auto known = [](double v) {
      return v < 0 ? NAN : v;
    };
    name.push_back(r.name);
    family.push_back(r.family);
    state.push_back(r.passed ? "passed" : "FAILED: " + r.why);
    experts.push_back(r.choices ? fmt::format("{} of {}", r.choices - r.wrong_choices, r.choices)
                                : "");
    logits.push_back(known(r.logits));
    allowed.push_back(r.allowed > 0 ? r.allowed : NAN);
    router.push_back(known(r.router_logits));
    hidden.push_back(known(r.hidden));
    output.push_back(known(r.moe_output));
    encoders.push_back(known(r.encoders));
    loss.push_back(known(r.loss));
  }
  // of models of several modalities, whose cases say more
  bool has_outputs() const {
    return std::ranges::any_of(output, [](double v) { return !std::isnan(v); });
  }
  Table table() const {
    Table t{.id = "models",
            .title = "Checkpoints",
            .reading =
                "Largest absolute differences from what the class itself gave; logits may be off "
                "by what is allowed, router logits by 1e-5 (1e-4 in GGUF), experts by none."};
    t.columns = {{.name = "case", .cells = name},
                 {.name = "family", .cells = family},
                 {.name = "logits", .cells = logits},
                 {.name = "allowed", .cells = allowed},
                 {.name = "router logits", .cells = router},
                 {.name = "hidden", .cells = hidden},
                 {.name = "loss", .cells = loss},
                 {.name = "experts equal", .cells = experts},
                 {.name = "result", .cells = state}};
    if (has_outputs()) {
      t.reading =
          "Largest absolute differences from what the class itself gave: logits may be off by "
          "4e-5, router logits, losses and what encoders give by 1e-5, hidden states by 2e-5, "
          "outputs of MoE layers by 5e-5, experts by none.";
      t.columns.insert(t.columns.begin() + 6, {{.name = "MoE output", .cells = output},
                                               {.name = "encoders", .cells = encoders}});
    }
    return t;
  }
};

// Published checkpoints beside the outputs of their classes.
bool verify_models(const Options& o, Report& report) {
  const auto device = open_device(o.device);
  ModelCases models;
  std::vector<GoldenModelResult> malformed;
  std::size_t failed = 0;
  double worst = 0;
  for (const GoldenModelResult& r : verify_golden_models(o.golden, *device)) {
    failed += !r.passed;
    worst = std::max(worst, r.logits);
    if (r.name.starts_with("bad/"))
      malformed.push_back(r);
    else
      models.add(r);
  }
  const std::size_t cases = models.name.size() + malformed.size();
  report.title = fmt::format("{} on {}: {} of {} cases passed, largest difference of logits {:.1e}",
                             o.golden, device->name(), cases - failed, cases, worst);
  if (!models.name.empty())
    report.tables.push_back(models.table());
  if (!malformed.empty())
    report.tables.push_back(malformed_table(o.golden, malformed));
  return failed == 0;
}

// Files of expected values of one layer, a row each.
struct LayerCases {
  std::vector<std::string> name, state, where;
  std::vector<double> f64, f32;
  int count[3] = {0, 0, 0};         // passed, failed, unsupported
  double worst64 = 0, worst32 = 0;  // of those that passed

  void add(const GoldenResult& r) {
    ++count[int(r.state)];
    name.push_back(r.name);
    state.emplace_back(name_of(r.state));
    where.push_back(!r.reason.empty() ? r.reason : r.f64 ? r.f64->where : "");
    f64.push_back(r.f64 ? r.f64->error : NAN);
    f32.push_back(r.f32 ? r.f32->error : NAN);
    if (r.state == GoldenResult::State::passed) {
      worst64 = std::max(worst64, r.f64 ? r.f64->error : 0);
      worst32 = std::max(worst32, r.f32 ? r.f32->error : 0);
    }
  }
  Table table() const {
    Table t{.id = "golden",
            .title = "Cases",
            .reading =
                "f64 on `reference` may be off by 1e-10, f32 on the device by 1e-5 of the "
                "tensor's largest number (a mixer by 5e-6, its gradients by 2e-5); ids must be "
                "equal."};
    t.columns = {{.name = "case", .cells = name},
                 {.name = "result", .cells = state},
                 {.name = "f64", .cells = f64},
                 {.name = "f32", .cells = f32},
                 {.name = "where or why", .cells = where}};
    return t;
  }
};

// Tokenizers beside their own libraries, a row each; malformed ones last.
bool verify_tokenizers(const Options& o, Report& report) {
  std::vector<std::string> name, state, why;
  std::vector<std::int64_t> cases, wrong;
  std::int64_t compared = 0;
  std::int64_t failed = 0;
  for (const GoldenTokenizerResult& r : verify_golden_tokenizers(o.golden)) {
    name.push_back(r.name);
    state.emplace_back(r.passed() ? "passed" : "FAILED");
    cases.push_back(std::int64_t(r.cases));
    wrong.push_back(std::int64_t(r.failed));
    why.push_back(r.why);
    compared += std::int64_t(r.cases);
    failed += std::int64_t(r.failed);
  }
  report.title = fmt::format("{}: {} of {} cases passed, {} failed", o.golden, compared - failed,
                             compared, failed);
  Table t{.id = "tokenizers",
          .title = "Tokenizers",
          .reading =
              "Ids, framed ids, offsets and decoded text must be equal; of a malformed file, right "
              "is an error that says what is wrong."};
  t.columns = {{.name = "tokenizer", .cells = name},
               {.name = "result", .cells = state},
               {.name = "cases", .cells = cases},
               {.name = "failed", .cells = wrong},
               {.name = "first difference, or what was said", .cells = why}};
  report.tables.push_back(std::move(t));
  return failed == 0;
}

// A case that no layer can take may be a trace: its figures are held to those expected.
GoldenResult as_trace(GoldenResult r, const std::filesystem::path& golden) {
  const auto file = std::filesystem::is_directory(golden) ? golden / concat(r.name, ".h5") : golden;
  if (r.state != GoldenResult::State::unsupported || !has_golden_metrics(file))
    return r;
  const GoldenMetricResult m = verify_golden_metric(file);
  r.state = m.passed ? GoldenResult::State::passed : GoldenResult::State::failed;
  r.reason = m.passed ? "" : m.where;
  r.f64 = GoldenError{m.error, m.where};
  r.f32 = GoldenError{m.float_error, m.where};
  return r;
}

// Folders of expected values in a folder that has none itself.
std::vector<std::filesystem::path> golden_parts(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::vector<fs::path> out;
  if (!fs::is_directory(folder))
    return out;
  const auto is_case = [](const fs::directory_entry& e) {
    return e.path().extension() == ".h5";
  };
  const auto cases_in = [&](const fs::path& where) {
    return std::any_of(fs::directory_iterator(where), fs::directory_iterator(), is_case);
  };
  if (cases_in(folder))
    return out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && (is_golden_models(entry.path()) || cases_in(entry.path())))
      out.push_back(entry.path());
  }
  std::ranges::sort(out);
  return out;
}

bool verify_golden_folder(const Options&, Report&);

bool verify_golden_parts(const Options& o, const std::vector<std::filesystem::path>& parts,
                         Report& report) {
  bool good = true;
  for (const auto& part : parts) {
    Options of_part = o;
    of_part.golden = part.string();
    Report r;
    good = verify_golden_folder(of_part, r) && good;
    report.title += concat(report.title.empty() ? "" : "; ", r.title);
    for (Table& t : r.tables) {
      t.id = concat(t.id, "_", part.filename().string());
      report.tables.push_back(std::move(t));
    }
  }
  return good;
}

bool verify_golden_folder(const Options& o, Report& report) {
  if (is_golden_tokenizers(o.golden))
    return verify_tokenizers(o, report);
  if (has_golden_metrics(o.golden))
    return verify_metrics(o, report);
  if (is_golden_models(o.golden))
    return verify_models(o, report);
  if (const auto parts = golden_parts(o.golden); !parts.empty())
    return verify_golden_parts(o, parts, report);
  LayerCases layers;
  for (const GoldenResult& r : verify_golden(o.golden, o.device.device))
    layers.add(as_trace(r, o.golden));
  report.title = fmt::format(
      "{}: {} passed, {} failed, {} unsupported; largest error {:.1e} in f64, {:.1e} in f32",
      o.golden, layers.count[0], layers.count[1], layers.count[2], layers.worst64, layers.worst32);
  report.tables.push_back(layers.table());
  return layers.count[1] == 0;
}

// A folder from elsewhere has no manifest: it is read as every other verb would read it, and all of
// its numbers are looked at.
std::string model_problem(const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder / manifest_name))
    return "";
  const auto device = make_backend("cpu");
  try {
    const LoadedModel loaded = load_model(
        folder, *device, {.holding = {.numbers = Keep::as_fits}, .head = Head::optional});
    report_loading(loaded, folder);
    refuse_infinite(*loaded.model);
  } catch (const Error& e) {
    if (e.code() != Exit::input)
      throw;
    return e.what();
  }
  return "";
}

// What is wrong with a checkpoint or a run, a sentence each.
std::vector<std::string> model_problems(const std::string& path) {
  std::vector<std::string> out;
  if (gguf_file_of(path)) {
    if (const std::string p = model_problem(path); !p.empty())
      out.push_back(p);
    return out;
  }
  if (std::filesystem::exists(std::filesystem::path(path) / "config.json")) {
    std::string p = checkpoint_problem(path);
    if (p.empty())
      p = model_problem(path);
    if (!p.empty())
      out.push_back(p);
    return out;
  }
  const auto steps = checkpoint_steps(path);
  if (steps.empty()) {
    throw Error(Exit::input, concat("'", path, "' is neither a trace, a checkpoint nor a run"))
        .hint("moe verify FILE.moetrace.h5, moe verify RUN, or moe verify --device cpu");
  }
  for (const auto step : steps) {
    if (const std::string p =
            checkpoint_problem(std::filesystem::path(path) / checkpoint_name(step));
        !p.empty()) {
      out.push_back(p);
    }
  }
  return out;
}

TraceCheck check_path(const std::string& path) {
  if (!std::filesystem::exists(path))
    throw Error(Exit::input, concat("there is no '", path, "'"));
  if (std::filesystem::is_directory(path) || gguf_file_of(path))
    return {model_problems(path), {}};
  return check_trace(path);
}

// Traces, checkpoints and runs, a row for each thing that is wrong, or one that says "whole", and
// one for each remark.
struct FileRows {
  std::vector<std::string> file, result;
  bool good = true;

  void add(const std::string& path) {
    const TraceCheck found = check_path(path);
    for (const std::string& wrong : found.findings)
      add(path, wrong);
    if (found.findings.empty())
      add(path, "whole");
    for (const std::string& remark : found.remarks)
      add(path, "remark: " + remark);
    good = good && found.findings.empty();
  }
  void add(const std::string& path, const std::string& what) {
    file.push_back(path);
    result.push_back(what);
  }
  Table table() const {
    Table t{.id = "files", .title = "Files"};
    t.columns = {{.name = "file", .cells = file}, {.name = "result", .cells = result}};
    return t;
  }
  void print() const {
    for (std::size_t i = 0; i < file.size(); ++i) {
      fmt::print("{}\n",
                 result[i].starts_with(file[i]) ? result[i] : concat(file[i], ": ", result[i]));
    }
  }
};

int verify(const Options& o) {
  if (o.paths.empty() && o.golden.empty() && !o.device_given) {
    throw Error(Exit::usage, "nothing to verify was named")
        .hint("moe verify --device cpu, moe verify FILE, or moe verify --golden DIR");
  }
  check_output(o.out);
  Report report;
  FileRows files;
  for (const std::string& path : o.paths)
    files.add(path);
  bool good = files.good;
  if (!o.paths.empty()) {
    report.title = good ? "All is whole" : "Something is wrong";
    report.tables.push_back(files.table());
  }
  if (!o.golden.empty())
    good = verify_golden_folder(o, report) && good;
  else if (o.paths.empty() && o.device_given)
    good = verify_device(o, report) && good;
  const bool plain =
      !o.paths.empty() && o.golden.empty() && format_for(o.out) == "text" && o.out.to_screen();
  if (plain)
    files.print();
  else
    write_report(report, o.out);
  return good ? 0 : 1;
}

}  // namespace

Run verify_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("paths", o->paths, "traces, checkpoints, GGUF files or runs");
  cli.add_option("--golden", o->golden, "a folder of files with expected values")
      .type_name("FOLDER");
  add_device(cli, o->device);
  add_output(cli, o->out, "where the table goes");
  return [o, cli] {
    o->device_given = cli.given("--device");
    return verify(*o);
  };
}

}  // namespace moe
