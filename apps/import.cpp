// moe import: what another engine recorded becomes a trace.
#include "lib/import/import.h"

#include <fmt/format.h>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> inputs;
  std::string output, config;
  ImportOptions import;
  bool force = false;
  std::string options;  // all of them, as JSON
};

std::string summary(const Options& o, const ImportResult& r) {
  const std::size_t layers = r.header.layers.size();
  const int experts = r.header.max_experts();
  const std::string size = bytes_text(double(std::filesystem::file_size(o.output)));
  if (r.tokens == 0)
    return fmt::format("wrote {}: counts of {} steps x {} layers x {} experts, {}", o.output,
                       r.header.counts.rows(), layers, experts, size);
  return fmt::format("wrote {}: {} tokens in {} sequences x {} layers, top {} of {} experts, {}",
                     o.output, r.tokens, r.sequences, layers, r.header.max_choices(), experts,
                     size);
}

int import_files(const Options& o) {
  ImportOptions options = o.import;
  options.config = o.config;
  for (const std::string& path : o.inputs)
    options.inputs.emplace_back(path);
  TraceHeader header;
  header.producer = "moe " + version_short();
  header.command = command_line();
  header.config = o.options;
  header.created_utc = now_utc();
  std::unique_ptr<Progress> progress;
  ImportWatcher watcher;
  watcher.recognised = [](const std::string& name) {
    note("the format is " + name);
  };
  watcher.wrote = [&](std::uint64_t rows, std::uint64_t total) {
    if (!progress)
      progress = std::make_unique<Progress>("tokens", double(total), "tok");
    progress->update(double(rows));
  };
  const ImportResult result = import_trace(options, o.output, header, o.force, watcher);
  progress.reset();
  for (const std::string& sentence : result.said)
    note(sentence);
  note(summary(o, result));
  return 0;
}

void add_facts(CommandLine& cli, ImportOptions& i) {
  const OptionGroup group(cli, "What the files do not say");
  const auto count = [&](const char* name, int& value, const char* about, int most) {
    group.add(name, value, about).check(whole(1, most));
  };
  count("--experts", i.experts, "experts of a layer, E", 65534);
  count("--topk", i.topk, "choices of a token, K", 4096);
  count("--layers", i.layers, "layers in an array of routes (hidden layers of the model)", 4096);
  count("--micro-batch", i.micro_batch, "sequences that the rows of a record interleave", 1 << 20);
  count("--pipeline", i.pipeline, "stages of a pipeline, whose layer numbers are their own", 4096);
  count("--expert-parallel", i.expert_parallel, "ranks over which the experts were spread", 65535);
  group.add("--pad-id", i.pad_id, "leave out rows of this token id").check(whole(0));
  group.add("--domain-by", i.domain_by, "label sequences by their file's folder or name")
      .check(one_of({"folder", "file"}));
  group.add("--tokenizer", i.tokenizer, "the tokenizer's name, noted in the trace");
}

}  // namespace

Run import_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("inputs", o->inputs, "files that an engine recorded, or folders of them")
      .required();
  cli.add_option("-o,--output", o->output, "the trace to write").required().type_name("FILE");
  cli.add_option("--from", o->import.from,
                 "the format, where the files are not recognised: moe list imports")
      .type_name("NAME");
  cli.add_option("--config", o->config, "of the model that was recorded").type_name("config.json");
  add_facts(cli, o->import);
  cli.add_flag("--append", o->import.append, "add the rows to a trace that exists");
  cli.add_flag("--force", o->force, "replace a file that exists");
  return run_with(cli, o, import_files);
}

}  // namespace moe
