// moe export: a trace becomes a file that other programs take.
#include "lib/export/export.h"

#include <fmt/format.h>

#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/core/error.h"
#include "lib/files/file.h"

namespace moe {
namespace {

struct Options {
  std::string trace, output;
  ExportOptions exported;
  bool force = false;
};

// The format that a file's ending stands for.
std::string format_by_ending(const std::string& file) {
  const std::string ending = std::filesystem::path(file).extension().string();
  for (const auto& entry : exporters().entries()) {
    if (!ending.empty() && entry.examples == ending)
      return std::string(entry.name);
  }
  throw Error(Exit::usage, concat("the name '", file, "' does not say which format is meant"))
      .hint(concat("--to NAME, one of: ", join(exporters().names())));
}

int export_rows(const Options& o) {
  ExportOptions options = o.exported;
  if (options.to.empty())
    options.to = format_by_ending(o.output);
  std::unique_ptr<Progress> progress;
  const auto read = [&](std::uint64_t rows) {
    if (!progress)
      progress = std::make_unique<Progress>("rows read", 0, "row");
    progress->update(double(rows));
  };
  const ExportResult result = export_trace(o.trace, options, o.output, o.force, read);
  progress.reset();
  for (const std::string& sentence : result.said)
    note(sentence);
  const std::string size = bytes_text(double(std::filesystem::file_size(o.output)));
  if (result.tokens == 0)
    note(fmt::format("wrote {}: counts of {} layers, {}", o.output, result.layers, size));
  else
    note(fmt::format("wrote {}: {} tokens in {} sequences x {} layers, {}", o.output, result.tokens,
                     result.sequences, result.layers, size));
  return 0;
}

}  // namespace

Run export_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("trace", o->trace, "the trace to export").required();
  cli.add_option("-o,--output", o->output, "the file to write").required().type_name("FILE");
  cli.add_option("--to", o->exported.to,
                 "npz, csv, jsonl, megatron, eplb-json or replay-npy; default: by the ending of -o "
                 "(.npz, .csv, .jsonl, .npy); moe list exports")
      .type_name("NAME");
  cli.add_option("--sequence", o->exported.sequence, "this sequence alone, counted from 0")
      .check(whole(0));
  cli.add_option("--domain", o->exported.domain, "sequences of this domain alone")
      .type_name("LABEL");
  cli.add_option("--phase", o->exported.phase, "rows of this phase alone")
      .type_name("prefill|decode|train|eval")
      .check(one_of({"prefill", "decode", "train", "eval"}));
  cli.add_flag("--force", o->force, "replace a file that exists");
  return [o] {
    return export_rows(*o);
  };
}

}  // namespace moe
