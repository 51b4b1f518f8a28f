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
#include "lib/golden/golden_layer.h"
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

bool verify_device(const Options& o, Report& report) {
  const auto device = open_device(o.device);
  const auto reference = make_backend("reference");
  std::vector<std::string> name, shape, state;
  std::vector<double> error, allowed;
  int failed = 0;
  const auto all = cases();
  Progress progress("cases", double(all.size()), "case");
  for (const Case& c : all) {
    const Verdict v = compare(c, *device, *reference);
    progress.update(double(name.size()));
    name.push_back(c.operation);
    shape.push_back(c.shape);
    error.push_back(v.difference.error);
    allowed.push_back(c.allowed);
    state.push_back(v.passed ? "passed" : "FAILED " + v.sentence());
    failed += !v.passed;
  }
  for (const TrainingVerdict& v : check_training(*device, *reference)) {
    name.push_back(v.what);
    shape.push_back(v.of);
    error.push_back(v.error);
    allowed.push_back(v.allowed);
    state.push_back(v.passed ? "passed" : "FAILED " + v.sentence);
    failed += !v.passed;
  }
  report.title = fmt::format("{} against the definition: {} of {} cases passed", device->name(),
                             int(name.size()) - failed, name.size());
  Table t{.id = "cases",
          .title = "Operations",
          .reading =
              "error = squared difference over squared size, against `reference`; of a resumed run "
              "the numbers with other bits. A NaN fails."};
  t.columns = {{.name = "operation", .cells = name},
               {.name = "shape", .cells = shape},
               {.name = "error", .cells = error},
               {.name = "allowed", .cells = allowed},
               {.name = "result", .cells = state}};
  report.tables.push_back(t);
  return failed == 0;
}

bool verify_metrics(const Options& o, Report& report) {
  std::vector<std::string> name, state, where;
  std::vector<std::int64_t> ids;
  std::vector<double> f64, f32;
  int failed = 0;
  double worst64 = 0;
  double worst32 = 0;
  std::int64_t compared = 0;
  for (const GoldenMetricResult& r : verify_golden_metrics(o.golden)) {
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
  report.title = fmt::format(
      "{}: {} of {} files passed, {} metrics compared; largest error {:.1e}, {:.1e} through "
      "numbers stored as f32",
      o.golden, int(name.size()) - failed, name.size(), compared, worst64, worst32);
  Table t{.id = "golden_metrics",
          .title = "Metrics against expected values",
          .reading =
              "Counts and ids must be equal; figures may be off by 1e-10 of max(1, |expected|), by "
              "1e-5 where a trace stores their input as f32."};
  t.columns = {{.name = "file", .cells = name},       {.name = "result", .cells = state},
               {.name = "metrics", .cells = ids},     {.name = "f64", .cells = f64},
               {.name = "through f32", .cells = f32}, {.name = "where or why", .cells = where}};
  report.tables.push_back(t);
  return failed == 0;
}

// Published checkpoints beside the outputs of their classes.
// The sentence without the folder of its case, which stands beside it.
std::string without_folder(std::string sentence, const std::filesystem::path& folder) {
  const std::string text = folder.string() + "/";
  for (auto at = sentence.find(text); at != sentence.npos; at = sentence.find(text, at))
    sentence.erase(at, text.size());
  return sentence;
}

Table malformed_table(const std::string& golden, const std::vector<GoldenModelResult>& all) {
  std::vector<std::string> name, state, said;
  for (const GoldenModelResult& r : all) {
    name.push_back(r.name.substr(4));
    state.emplace_back(r.passed ? "passed" : "FAILED");
    said.push_back(r.why.empty() ? "read without a word"
                                 : without_folder(r.why, std::filesystem::path(golden) / r.name));
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

bool verify_models(const Options& o, Report& report) {
  const auto device = open_device(o.device);
  std::vector<std::string> name, family, state, experts;
  std::vector<double> logits, router, hidden, loss;
  std::vector<GoldenModelResult> bad;
  std::size_t failed = 0;
  double worst = 0;
  const auto known = [](double v) {
    return v < 0 ? NAN : v;
  };
  for (const GoldenModelResult& r : verify_golden_models(o.golden, *device)) {
    failed += !r.passed;
    worst = std::max(worst, r.logits);
    if (r.name.starts_with("bad/")) {
      bad.push_back(r);
      continue;
    }
    name.push_back(r.name);
    family.push_back(r.family);
    state.push_back(r.passed ? "passed" : "FAILED: " + r.why);
    experts.push_back(r.choices ? fmt::format("{} of {}", r.choices - r.wrong_choices, r.choices)
                                : "");
    logits.push_back(known(r.logits));
    router.push_back(known(r.router_logits));
    hidden.push_back(known(r.hidden));
    loss.push_back(known(r.loss));
  }
  const std::size_t cases = name.size() + bad.size();
  report.title = fmt::format("{} on {}: {} of {} cases passed, largest difference of logits {:.1e}",
                             o.golden, device->name(), cases - failed, cases, worst);
  Table t{.id = "models",
          .title = "Checkpoints",
          .reading =
              "Largest absolute differences from what the class itself gave; logits may be off by "
              "2e-5, router logits by 1e-5, experts by none."};
  t.columns = {{.name = "case", .cells = name},
               {.name = "family", .cells = family},
               {.name = "logits", .cells = logits},
               {.name = "router logits", .cells = router},
               {.name = "hidden", .cells = hidden},
               {.name = "loss", .cells = loss},
               {.name = "experts equal", .cells = experts},
               {.name = "result", .cells = state}};
  report.tables.push_back(t);
  if (!bad.empty())
    report.tables.push_back(malformed_table(o.golden, bad));
  return failed == 0;
}

bool verify_golden_folder(const Options& o, Report& report) {
  if (has_golden_metrics(o.golden))
    return verify_metrics(o, report);
  if (is_golden_models(o.golden))
    return verify_models(o, report);
  std::vector<std::string> name, state, where;
  std::vector<double> f64, f32;
  int count[3] = {0, 0, 0};
  double worst64 = 0;
  double worst32 = 0;
  for (const GoldenResult& r : verify_golden(o.golden, o.device.device)) {
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
  report.title = fmt::format(
      "{}: {} passed, {} failed, {} unsupported; largest error {:.1e} in f64, {:.1e} in f32",
      o.golden, count[0], count[1], count[2], worst64, worst32);
  Table t{.id = "golden",
          .title = "Cases",
          .reading =
              "f64 on `reference` may be off by 1e-10, f32 on the device by 1e-5 of the tensor's "
              "largest number; ids must be equal."};
  t.columns = {{.name = "case", .cells = name},
               {.name = "result", .cells = state},
               {.name = "f64", .cells = f64},
               {.name = "f32", .cells = f32},
               {.name = "where or why", .cells = where}};
  report.tables.push_back(t);
  return count[1] == 0;
}

// A folder from elsewhere has no manifest: it is read as every other verb would read it, numbers of
// all weights included where they fit into memory.
std::string model_problem(const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder / manifest_name))
    return "";
  const auto device = make_backend("cpu");
  try {
    report_loading(load_model(folder, *device, {}, as_fits));
  } catch (const Error& e) {
    if (e.code() != Exit::input)
      throw;
    return e.what();
  }
  return "";
}

// What is wrong with a trace or a checkpoint, a sentence each.
std::vector<std::string> problems(const std::string& path) {
  if (!std::filesystem::exists(path))
    throw Error(Exit::input, concat("there is no '", path, "'"));
  if (!std::filesystem::is_directory(path))
    return verify_trace(path);
  std::vector<std::string> out;
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

int verify(const Options& o) {
  if (o.paths.empty() && o.golden.empty() && !o.device_given) {
    throw Error(Exit::usage, "nothing to verify was named")
        .hint("moe verify --device cpu, moe verify FILE, or moe verify --golden DIR");
  }
  check_output(o.out);
  Report report;
  std::vector<std::string> file, result;
  bool good = true;
  for (const std::string& path : o.paths) {
    const auto wrong = problems(path);
    for (const std::string& w : wrong) {
      file.push_back(path);
      result.push_back(w);
    }
    if (wrong.empty()) {
      file.push_back(path);
      result.emplace_back("whole");
    }
    good = good && wrong.empty();
  }
  if (!o.paths.empty()) {
    report.title = good ? "All is whole" : "Something is wrong";
    Table t{.id = "files", .title = "Files"};
    t.columns = {{.name = "file", .cells = file}, {.name = "result", .cells = result}};
    report.tables.push_back(t);
  }
  if (!o.golden.empty() || (o.paths.empty() && o.device_given)) {
    good = (o.golden.empty() ? verify_device(o, report) : verify_golden_folder(o, report)) && good;
  }
  if (o.paths.empty() || !o.golden.empty() || format_for(o.out) != "text" || !o.out.to_screen()) {
    write_report(report, o.out);
  } else {
    for (std::size_t i = 0; i < file.size(); ++i) {
      fmt::print("{}\n",
                 result[i].starts_with(file[i]) ? result[i] : concat(file[i], ": ", result[i]));
    }
  }
  return good ? 0 : 1;
}

}  // namespace

Run verify_command(CLI::App& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("paths", o->paths, "traces, checkpoints or runs");
  cli.add_option("--golden", o->golden, "a folder of files with expected values")
      ->type_name("FOLDER");
  add_device(cli, o->device);
  add_output(cli, o->out, "where the table goes");
  CLI::Option* device = cli.get_option("--device");
  return [o, device] {
    o->device_given = device->count() > 0;
    return verify(*o);
  };
}

}  // namespace moe
