// moe edit: a checkpoint made from a checkpoint. The edits themselves are lib/edit/edit.h; here
// they are read from the command line.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/provenance.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "datasets/dataset.h"
#include "lib/checkpoint/run_lock.h"
#include "lib/edit/expert_scores.h"
#include "lib/edit/gguf_slice.h"
#include "lib/family/families.h"
#include "lib/files/file.h"
#include "lib/files/gguf.h"
#include "lib/model/cost.h"
#include "lib/run/run_folder.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model, output, trace, options, upcycle, split, add, remove, merge;
  std::uint64_t seed = 1;
  DeviceOptions device;
};

ExpertScores scores(const Options& o, const Decoder<float>& model, ExpertScore kind) {
  if (o.trace.empty()) {
    throw Error(Exit::usage, "the importance of experts is read from a trace, and none is given")
        .hint("--trace a.moetrace.h5");
  }
  return expert_scores(model, TraceReader(o.trace), kind);
}

// The experts that --remove means.
std::vector<ExpertName> removed(const Options& o, const Decoder<float>& model) {
  if (!o.remove.empty() && o.remove[0] >= '0' && o.remove[0] <= '9')
    return expert_names(o.remove);
  Spec spec(o.remove);
  if (spec.name() != "load" && spec.name() != "reap")
    no_such("way to choose experts", spec.name(), {"load", "reap"});
  const int count = spec.get("count", 1, 1);
  spec.done();
  const ExpertScore kind = spec.name() == "load" ? ExpertScore::load : ExpertScore::reap;
  return lowest(model, scores(o, model, kind), count);
}

Edited add(const Options& o, Decoder<float>& model) {
  Spec spec("add:count=" + o.add);
  const int count = spec.get("count", 1, 1);
  const double noise = spec.get("noise", 0.01, 0.0);
  spec.done();
  return add_experts(model, count, noise,
                     o.trace.empty() ? ExpertScores{} : scores(o, model, ExpertScore::load),
                     o.seed);
}

Edited merge(const Options& o, Decoder<float>& model) {
  Spec spec("merge:" + o.merge);
  const double threshold = spec.get("threshold", 0.9, -1.0);
  spec.done();
  return merge_experts(model, threshold);
}

Edited edited(const Options& o, Decoder<float>& model) {
  int asked = 0;
  for (const std::string* s : {&o.upcycle, &o.split, &o.add, &o.remove, &o.merge})
    asked += !s->empty();
  if (asked != 1) {
    throw Error(Exit::usage, fmt::format("{} edits were asked for", asked))
        .hint("one of --upcycle, --split, --add, --remove, --merge; several are several calls");
  }
  if (!o.upcycle.empty())
    return upcycle(model, o.upcycle, o.seed);
  if (!o.split.empty())
    return split_dense(model, o.split, o.seed);
  if (!o.add.empty())
    return add(o, model);
  return o.remove.empty() ? merge(o, model) : remove_experts(model, removed(o, model));
}

RunState state_of(const Options& o, const LoadedModel& from, const Decoder<float>& to,
                  const Tokenizer* tokenizer) {
  RunState s;
  if (from.state)
    s = *from.state;
  s.step = 0;
  s.train.steps = 0;
  s.trace.clear();
  s.trace_rows = 0;
  s.steps_with_gradient.clear();
  s.model = to_spec(to.config());
  s.tokenizer = tokenizer ? kept_name(*tokenizer) : from.tokenizer;
  s.options = o.options;
  s.device = o.device.device;
  return s;
}

void write_run_json(const fs::path& folder, const LoadedModel& from, const Edited& result) {
  write_json(folder / "run.json", {{"format", "moe-run"},
                                   {"version", 1},
                                   {"moe", version_short()},
                                   {"command", command_line()},
                                   {"created_utc", now_utc()},
                                   {"from", from.checkpoint.path.string()},
                                   {"model", to_spec(result.model->config())},
                                   {"changes", result.changes}});
}

// From GGUF to GGUF: bytes are copied, so that only experts can go. The model is opened without its
// experts, for the trace that says which.
int edit_gguf(const Options& o) {
  const auto from = gguf_file_of(o.model);
  const bool others = !o.upcycle.empty() || !o.split.empty() || !o.add.empty() || !o.merge.empty();
  if (!from || others || o.remove.empty()) {
    throw Error(Exit::usage,
                concat("'", o.output, "' would be a GGUF file, which is only made from ",
                       "another one by --remove"))
        .hint("-o FOLDER for a checkpoint in safetensors");
  }
  refuse_existing(o.output, false);
  const auto device = open_device(o.device);
  const LoadedModel loaded = load_model(*from, *device, {}, 0);
  for (const std::string& n : loaded.checkpoint.notes)
    warning(n);
  for (const std::string& c : slice_gguf(*from, o.output, removed(o, *loaded.model)))
    fmt::print("{}\n", c);
  note(fmt::format("wrote {}: {} of {}", o.output, bytes_text(double(fs::file_size(o.output))),
                   bytes_text(double(GgufFile(*from).size()))));
  return 0;
}

int edit(const Options& o) {
  if (o.output.ends_with(".gguf"))
    return edit_gguf(o);
  const fs::path folder = o.output;
  if (fs::exists(folder)) {
    throw Error(Exit::usage, concat("'", o.output, "' exists"))
        .hint("another -o")
        .safe("it was not touched");
  }
  const auto device = open_device(o.device);
  LoadedModel loaded = load_model(o.model, *device);
  for (const std::string& n : loaded.checkpoint.notes)
    warning(n);
  const Edited result = edited(o, *loaded.model);
  const auto tokenizer = tokenizer_of(loaded);
  const RunLock lock(folder);
  write_run_json(folder, loaded, result);
  const fs::path saved = save_checkpoint(
      folder, *result.model, nullptr, state_of(o, loaded, *result.model, tokenizer.get()),
      tokenizer ? tokenizer_files(*tokenizer, false) : TokenizerFiles{});
  for (const std::string& c : result.changes)
    fmt::print("{}\n", c);
  const ModelCost a = cost_of(loaded.model->config(), 1);
  const ModelCost b = cost_of(result.model->config(), 1);
  fmt::print("parameters {} -> {}, active a token {} -> {}\n", a.parameters, b.parameters,
             a.active_parameters, b.active_parameters);
  note(fmt::format("wrote {} ({}); train it on with: moe train --init {} --data ... -o NEW",
                   saved.string(), fit_of(result.model->config()).family, o.output));
  return 0;
}

}  // namespace

Run edit_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("model", o->model, "a run, a checkpoint, a Hugging Face folder, or a GGUF file")
      .required();
  cli.add_option("-o,--output", o->output,
                 "the folder to make, for the new checkpoint; NAME.gguf with --remove, from GGUF")
      .required();
  cli.add_option("--upcycle", o->upcycle,
                 "dense to sparse: copy:experts=8,k=2,noise=0.01 | granular:shards=4,expansion=2; "
                 "every=n for each n-th layer")
      .group("edits");
  cli.add_option("--split", o->split,
                 "cut the dense feed-forward into experts: experts=4,k=4,order=index|random")
      .group("edits");
  cli.add_option("--add", o->add,
                 "N more experts in each layer, copies of the first (of the busiest with --trace): "
                 "2,noise=0.01")
      .group("edits");
  cli.add_option(
         "--remove", o->remove,
         "load:count=2 | reap:count=2 (least first, by --trace), or names LAYER:EXPERT: 0:3,1:5")
      .group("edits");
  cli.add_option("--merge", o->merge, "experts of like weights become their mean: threshold=0.9")
      .group("edits");
  cli.add_option("--trace", o->trace, "a trace of this checkpoint: who was used");
  cli.add_option("--seed", o->seed, "of noise and new router rows").show_default().check(whole(0));
  add_device(cli, o->device);
  add_config(cli);
  return run_with(cli, std::move(o), edit);
}

}  // namespace moe
