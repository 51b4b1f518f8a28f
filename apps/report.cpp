// moe report: what a trace shows.
#include <fmt/format.h>

#include <filesystem>

#include "analysis/metric/metric.h"
#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/pages.h"
#include "apps/terminal.h"
#include "apps/truth.h"
#include "apps/values.h"
#include "apps/version.h"
#include "lib/core/error.h"

namespace moe {
namespace {

struct Options {
  std::string trace;
  std::vector<std::string> metrics;
  int sample = 600;
  std::string memory = "300MB", truth;
  OutputOptions out;
};

// Of what the whole program may take, one metric's counts get a third: few are that large at once, and the rest is windows,
// the tables of the report, and the program.
std::int64_t of_one_metric(std::int64_t all) { return all / 3; }

int report(const Options& o) {
  check_output(o.out);
  keep_pages();
  if (std::filesystem::is_directory(o.trace)) throw Error(Exit::input, concat("'", o.trace, "' is a folder, and a report is made from a trace")).hint(concat("moe trace ", o.trace, " --data SPEC -o a.moetrace.h5, then moe report a.moetrace.h5"));
  const FileTrace trace(o.trace);
  Progress progress("tokens", double(trace.tokens()), "tok");
  AnalyzeOptions options;
  options.sample_tokens = o.sample;
  options.memory = of_one_metric(parse_size(o.memory, "--memory"));
  if (!o.truth.empty()) options.truth = planted_truth(o.truth, trace.header().vocab_size);
  options.progress = [&](std::uint64_t rows) { progress.update(double(rows)); };
  Report r = analyze(trace, o.metrics, options);
  r.facts.emplace_back("report by", "moe " + version_short());
  r.facts.emplace_back("report command", command_line());
  write_report(r, o.out);
  return 0;
}

}  // namespace

Run report_command(CLI::App& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("trace", o->trace, "a trace (*.moetrace.h5), of moe or of any engine that writes the format")->required();
  cli.add_option("--metric", o->metrics, "only these, NAME:key=value,...; may be given again: moe list metrics")->expected(1)->take_all()->type_name("SPEC");
  cli.add_option("--sample", o->sample, "tokens of each domain shown with their experts; 0 = none")->capture_default_str()->check(whole(0, 100000));
  cli.add_option("--memory", o->memory, "memory to keep to, about; one metric's counts get a third of it, and what does not fit is left out in a sentence")->type_name("SIZE")->capture_default_str();
  cli.add_option("--truth", o->truth, "the data the trace was made with, where its clusters were planted (clusters:...): how well the experts recover them")->type_name("SPEC");
  add_output(cli, o->out, "where the report goes");
  add_config(cli);
  return [o] { return report(*o); };
}

}  // namespace moe
