// moe report: what a trace shows.
#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "analysis/compare/compare.h"
#include "analysis/compare/conventions.h"
#include "analysis/compare/lights.h"
#include "analysis/metric/definitions.h"
#include "analysis/metric/stack_trace.h"
#include "analysis/report/figures.h"
#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/former_names.h"
#include "apps/metric_selection.h"
#include "apps/output.h"
#include "apps/planted_labels.h"
#include "apps/run_curves.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "apps/worth_file.h"
#include "lib/core/error.h"
#include "lib/core/pages.h"
#include "lib/trace/arrays.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> traces, metrics, thresholds;
  std::string against, convention, fail_on, values, figures, stack, worth;
  int sample = 600, bootstrap = 200;
  bool by_id = false, all = false, sample_given = false;
  std::string memory = "300MB", planted;
  OutputOptions out;
};

// Of what the whole program may take, one metric's counts get a third: few are that large at once,
// and the rest is windows, the tables of the report, and the program.
std::int64_t of_one_metric(std::int64_t all) {
  return all / 3;
}

void refuse_folder(const std::string& path) {
  if (std::filesystem::is_directory(path)) {
    throw Error(Exit::input, concat("'", path, "' is a folder, and a report is made from a trace"))
        .hint(concat("moe trace ", path,
                     " --data SPEC -o a.moetrace.h5, then moe report a.moetrace.h5"));
  }
}

// The last part of each name, or as much of the path as it takes to tell them apart.
std::string name_of(const std::string& path, const std::vector<std::string>& all) {
  const std::string name = std::filesystem::path(path).filename().string();
  for (const std::string& other : all) {
    if (other != path && std::filesystem::path(other).filename() == name)
      return path;
  }
  return name;
}

void remark_on(const FileTrace& trace, const std::string& path) {
  for (const std::string& remark : trace.reader().state().remarks)
    note(concat(path, ": ", remark));
}

// Nothing on the command line says what of the report is wanted: its short answer.
bool in_brief(const Options& o) {
  return o.out.to_screen() && o.out.format.empty() && !o.all && o.metrics.empty();
}

// A trace as it is shown: all of it, or one stack of an encoder-decoder.
struct OpenTrace {
  OpenTrace(const std::string& path, const std::string& stack) : file(checked(path)) {
    const bool both = file.header().has_encoder();
    if (!both && !stack.empty()) {
      throw Error(Exit::usage, concat("--stack ", stack,
                                      " chooses among the layers of an "
                                      "encoder-decoder, and '",
                                      path, "' is of none"))
          .hint("leave --stack out");
    }
    if (both)
      one_stack.emplace(file, stack == "encoder");
  }
  static const std::string& checked(const std::string& path) {
    refuse_folder(path);
    return path;
  }
  const TraceSource& shown() const {
    return one_stack ? static_cast<const TraceSource&>(*one_stack) : file;
  }

  FileTrace file;
  std::optional<StackTrace> one_stack;
};

Report compared(const Options& o, const AnalyzeOptions& options) {
  if (!o.metrics.empty()) {
    throw Error(Exit::usage,
                "--metric works with a single trace; several are compared by their main figures")
        .hint("a report of each trace with --metric");
  }
  std::vector<std::string> paths = o.traces;
  if (!o.against.empty())
    paths.push_back(o.against);
  std::vector<std::unique_ptr<OpenTrace>> files;
  std::vector<NamedTrace> named;
  for (const std::string& path : paths) {
    files.push_back(std::make_unique<OpenTrace>(path, o.stack));
    remark_on(files.back()->file, path);
    named.push_back({name_of(path, paths), &files.back()->shown(),
                     files.back()->file.reader().state().corpus_sha256});
  }
  Progress progress("tokens", 0, "tok");
  Report r = o.against.empty()
                 ? side_by_side(named, options)
                 : compare_against(named[0], named[1], options,
                                   o.by_id ? Experts::by_id : Experts::matched_where_foreign);
  for (std::size_t i = 0; i < files.size(); ++i) {
    for (const std::string& w : files[i]->shown().warnings())
      r.warnings.push_back(concat(named[i].name, ": ", w));
  }
  return r;
}

// Every definition's bare numbers, each under its id.
void write_values(const Options& o, const TraceSource& trace, const std::vector<MetricValue>& all,
                  const Report& r) {
  std::vector<NamedArray> arrays;
  std::vector<double> numbers;
  for (const TraceLayer& l : trace.header().layers)
    numbers.push_back(double(l.index));
  arrays.push_back({"layer",
                    {numbers.size()},
                    numbers,
                    {{"definition", "absolute number of each MoE layer: what axis L counts"}}});
  for (const MetricValue& v : all) {
    arrays.push_back({v.id, {v.dims.begin(), v.dims.end()}, v.values, {}});
    if (const Definition* d = find_definition(v.id)) {
      arrays.back().notes = {{"definition", std::string(d->formula)},
                             {"axes", std::string(d->shape)},
                             {"range", std::string(d->range)},
                             {"random_routing", std::string(d->chance)}};
    }
  }
  Notes notes;
  for (const auto& [name, text] : r.facts)
    notes.emplace_back(name, text);
  write_arrays(o.values, arrays, notes);
  note(fmt::format("wrote {}", o.values));
}

void write_figure(const std::filesystem::path& path, const std::string& bytes, bool force) {
  refuse_existing(path.string(), force);
  write_file(path, bytes);
}

// Every chart of the report, in the folder: SVG, and where the program can PDF and PNG.
void write_figures(const Options& o, const Report& r) {
  std::filesystem::create_directories(o.figures);
  const std::vector<Figure> all = figures_of(r);
  for (const Figure& f : all) {
    const std::string path = (std::filesystem::path(o.figures) / f.name).string();
    write_figure(path + ".svg", f.svg, o.out.force);
    if (can_render_figures()) {
      write_figure(path + ".pdf", figure_pdf(f), o.out.force);
      write_figure(path + ".png", figure_png(f), o.out.force);
    }
  }
  note(fmt::format("wrote {} figures to {}, as SVG{}", all.size(), o.figures,
                   can_render_figures() ? ", PDF and PNG" : ""));
}

Report of_one(const Options& o, AnalyzeOptions& options) {
  const OpenTrace opened(o.traces[0], o.stack);
  const TraceSource& trace = opened.shown();
  remark_on(opened.file, o.traces[0]);
  Progress progress("tokens", double(trace.tokens()), "tok");
  options.progress = [&](std::uint64_t rows) {
    progress.update(double(rows));
  };
  if (!o.planted.empty())
    options.planted_labels = planted_labels(o.planted, trace.header().vocab_size);
  if (!o.convention.empty()) {
    options.bootstrap = 0;
    return in_convention(trace, o.convention, options);
  }
  std::vector<MetricValue> values;
  if (!o.values.empty())
    options.values = &values;
  const Selection wanted(o.metrics);
  Report r = analyze(trace, wanted.specs(), options);
  if (!o.values.empty())
    write_values(o, trace, values, r);
  wanted.keep_in(r);
  if (!o.worth.empty())
    add_measured_worth(r, trace, read_worth(o.worth, trace.header().weights_xxh3));
  return r;
}

void check_format(const Options& o) {
  check_output(o.out);
  if (o.all && format_for(o.out) != "text") {
    throw Error(Exit::usage, concat("--all is for the text of a report; ", format_for(o.out),
                                    " has its own way to hold everything"))
        .hint("moe report a.moetrace.h5 --all, or -o report.html without it");
  }
  if (o.sample_given && in_brief(o)) {
    throw Error(Exit::usage,
                "--sample is text of the whole report, and only its short answer was "
                "asked for")
        .hint("--all, or -o report.html");
  }
}

void check(const Options& o) {
  check_format(o);
  const bool several = o.traces.size() > 1 || !o.against.empty();
  if (!o.convention.empty() && (several || !o.metrics.empty())) {
    throw Error(Exit::usage, "--convention gives all figures of another tool for a single trace")
        .hint("moe report a.moetrace.h5 --convention " + o.convention);
  }
  if ((several || !o.convention.empty()) && !o.values.empty()) {
    throw Error(Exit::usage,
                "--values writes the numbers of a single trace, by the definitions of this program")
        .hint("moe report a.moetrace.h5 --values a.values.h5");
  }
  if (!o.values.empty())
    refuse_existing(o.values, o.out.force);
  if ((several || !o.convention.empty()) && !o.planted.empty()) {
    throw Error(Exit::usage, "--planted-labels scores the report of one trace")
        .hint("moe report a.moetrace.h5 --planted-labels clusters:...");
  }
  if ((several || !o.convention.empty()) && (!o.thresholds.empty() || !o.fail_on.empty())) {
    throw Error(Exit::usage, "--threshold and --fail-on work with a single trace only")
        .hint("moe report a.moetrace.h5 --fail-on red");
  }
  if ((several || !o.convention.empty()) && !o.worth.empty()) {
    throw Error(Exit::usage, "--worth stands in the report of a single trace")
        .hint("moe report a.moetrace.h5 --worth worth.json -o report.html");
  }
  if (o.by_id && o.against.empty()) {
    throw Error(Exit::usage, "--by-id says how --against compares experts, and there is none")
        .hint("moe report a.moetrace.h5 --against b.moetrace.h5 --by-id");
  }
  if (o.traces.size() > 1 && !o.against.empty()) {
    throw Error(Exit::usage, concat("--against compares one trace with another, and ",
                                    o.traces.size(), " are given"))
        .hint("moe report a --against b; or side by side: moe report a b c");
  }
}

// Curves of runs: what is only for traces is refused.
int runs(const Options& o) {
  const bool of_traces = !o.against.empty() || !o.convention.empty() || !o.values.empty() ||
                         !o.planted.empty() || !o.worth.empty() || !o.metrics.empty() ||
                         !o.thresholds.empty() || !o.fail_on.empty() || !o.figures.empty() ||
                         o.sample_given || o.by_id;
  if (of_traces) {
    throw Error(Exit::usage,
                "a report of runs shows their training curves; options about routing "
                "are for traces")
        .hint(concat("moe trace ", o.traces[0],
                     " --data SPEC -o a.moetrace.h5, then moe report a.moetrace.h5"));
  }
  OutputOptions out = o.out;
  if (in_brief(o))
    out.screen = "brief";
  out.paged = o.all;
  return report_runs(o.traces, out);
}

int report(const Options& o) {
  if (are_runs(o.traces))
    return runs(o);
  check(o);
  keep_pages_of_windows();
  AnalyzeOptions options;
  options.sample_tokens = in_brief(o) ? 0 : o.sample;
  options.bootstrap = o.bootstrap;
  options.memory = of_one_metric(parse_size(o.memory, "--memory"));
  const auto limits = thresholds(o.thresholds);
  options.thresholds = limits;
  const bool several = o.traces.size() > 1 || !o.against.empty();
  Report r = several ? compared(o, options) : of_one(o, options);
  const auto worst = several || !o.convention.empty() ? std::nullopt : add_lights(r, limits);
  r.facts.emplace_back("report by", "moe " + version_short());
  r.facts.emplace_back("report command", command_line());
  if (!o.figures.empty())
    write_figures(o, r);
  OutputOptions out = o.out;
  if (in_brief(o))
    out.screen = "brief";
  out.paged = o.all;
  write_report(r, out);
  if (o.fail_on.empty())
    return 0;
  if (!worst) {
    throw Error(Exit::failed, "--fail-on found no figure that has a light")
        .hint("the lights come from the metrics load, drops and ranks");
  }
  return *worst >= (o.fail_on == "red" ? Light::red : Light::yellow) ? int(Exit::failed) : 0;
}

// Limits, intervals and memory.
void add_judging(CommandLine& cli, Options& o) {
  cli.add_option("--threshold", o.thresholds,
                 "where a traffic light turns, ID=YELLOW,RED; may be given again")
      .repeatable()
      .type_name("ID=Y,R");
  cli.add_option("--fail-on", o.fail_on, "exit code 1 where a light is red, or at least yellow")
      .check(one_of({"red", "yellow"}))
      .type_name("LIGHT");
  cli.add_option("--bootstrap", o.bootstrap,
                 "replicas behind the 95 % intervals, resampling sequences; 0 = no intervals")
      .show_default()
      .check(whole(0, 10000));
  cli.add_option("--memory", o.memory,
                 "memory to keep to, about; one metric's counts get a third of it, and what does "
                 "not fit is left out in a sentence")
      .type_name("SIZE")
      .show_default();
}

void add_stack(CommandLine& cli, std::string& stack) {
  cli.add_option("--stack", stack,
                 "of an encoder-decoder: the layers and tokens of its encoder, or of its decoder, "
                 "which is shown unless this says otherwise")
      .check(one_of({"encoder", "decoder"}))
      .type_name("STACK");
}

void add_planted(CommandLine& cli, std::string& planted_by) {
  const Option planted =
      cli.add_option("--planted-labels", planted_by,
                     "the data the trace was made with, where its clusters were planted "
                     "(clusters:...): how well the experts recover them")
          .type_name("SPEC");
  add_former_name(cli, "--truth", planted, planted_by);
}

}  // namespace

Run report_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("trace", o->traces,
                 "traces (*.moetrace.h5), of moe or of any engine that writes the format, or run "
                 "folders, for their training curves; several are shown side by side")
      .required();
  cli.add_option("--against", o->against,
                 "a reference over the same text: how far the trace's routing is that of this one")
      .type_name("TRACE");
  cli.add_flag("--by-id", o->by_id,
               "with --against: compare experts by their ids although the traces share no origin, "
               "or none is recorded; else the experts of each layer are matched one to one first");
  cli.add_flag("--all", o->all,
               "on the screen, everything: all findings, tables and the text, through $PAGER on a "
               "terminal; without it the short answer");
  add_stack(cli, o->stack);
  cli.add_option("--metric", o->metrics,
                 "only these, NAME:key=value,... (moe list metrics), or the id of one figure, as "
                 "load_cv (docs/metrics.md); may be given again")
      .repeatable()
      .type_name("SPEC");
  Option sample = cli.add_option("--sample", o->sample,
                                 "tokens of each domain shown with their experts; 0 = none");
  sample.show_default().check(whole(0, 100000));
  cli.add_option(
         "--convention", o->convention,
         "the figures of another tool by its own definitions, beside ours: moe list conventions")
      .type_name("NAME");
  add_judging(cli, *o);
  add_planted(cli, o->planted);
  cli.add_option("--worth", o->worth,
                 "what the experts are worth, of moe eval --without-expert each -o worth.json: "
                 "stands beside load and redundancy, with what foretells it")
      .type_name("FILE");
  cli.add_option("--values", o->values,
                 "an HDF5 file for the bare numbers of every definition, a dataset for each id of "
                 "docs/metrics.md")
      .type_name("FILE");
  cli.add_option("--figures", o->figures,
                 "a folder for every chart as a file of its own, SVG of 3.3 or 6.9 inches that "
                 "stands alone; PDF and PNG too where the program was built with librsvg")
      .type_name("FOLDER");
  add_output(cli, o->out, "where the report goes");
  add_config(cli);
  return [o, sample] {
    o->sample_given = sample.given();
    return report(*o);
  };
}

}  // namespace moe
