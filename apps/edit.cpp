// moe edit: a checkpoint made from a checkpoint. The edits themselves are lib/edit/edit.h; here
// they are read from the command line.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/provenance.h"
#include "apps/quantise.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "lib/edit/expert_scores.h"
#include "lib/edit/gguf_slice.h"
#include "lib/edit/merge.h"
#include "lib/family/config_like.h"
#include "lib/family/quantised_config.h"
#include "lib/files/file.h"
#include "lib/files/gguf.h"
#include "lib/model/cost.h"
#include "lib/run/run_folder.h"
#include "lib/run/run_tokenizer.h"
#include "lib/run/save_gguf.h"
#include "lib/run/stored_types.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model, output, trace, options, save, layout, upcycle, split, add, remove, merge;
  std::string quantise;
  double bytes = 0;
  std::uint64_t seed = 1;
  DeviceOptions device;
};

TraceReader trace_of(const Options& o) {
  if (o.trace.empty()) {
    throw Error(Exit::usage, "the importance of experts is read from a trace, and none is given")
        .hint("--trace a.moetrace.h5");
  }
  return TraceReader(o.trace);
}

ExpertScores scores(const Options& o, const Decoder<float>& model, ExpertScore kind) {
  return expert_scores(model, trace_of(o), kind);
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

// What the mean of merged experts goes by.
ExpertScores shares_of(const Options& o, const Decoder<float>& model, const std::string& mean) {
  const std::vector<std::string> means = {"equal", "load", "weight"};
  const std::vector<ExpertScore> by = {ExpertScore::load, ExpertScore::weight};
  const auto at = std::ranges::find(means, mean) - means.begin();
  if (at == std::ssize(means))
    no_such("mean of experts", mean, means);
  return at == 0 ? ExpertScores{} : scores(o, model, by[at - 1]);
}

Edited merge(const Options& o, Decoder<float>& model) {
  Spec spec("merge:" + o.merge);
  Merging m;
  m.count = spec.get("count", 0, 0);
  m.threshold = spec.get("threshold", m.threshold, -1.0);
  const std::string by = spec.get("by", "weights");
  m.aligned = spec.get("align", by == "outputs");
  const std::string mean = spec.get("mean", "equal");
  spec.done();
  if (m.count > 0 && o.merge.find("threshold") != o.merge.npos) {
    throw Error(Exit::usage, "count= says how many experts stay, and so does threshold=")
        .hint("one of the two");
  }
  m.use = shares_of(o, model, mean);
  if (by == "outputs")
    m.alike = output_cosine(model, trace_of(o));
  else if (by != "weights")
    no_such("way to compare experts", by, {"weights", "outputs"});
  return merge_experts(model, m);
}

// Without a model where only layout, type or format change.
Edited edited(const Options& o, Decoder<float>& model) {
  int asked = 0;
  for (const std::string* s : {&o.upcycle, &o.split, &o.add, &o.remove, &o.merge})
    asked += !s->empty();
  if (asked == 0 && !o.quantise.empty())
    return {nullptr, {}};
  if (asked == 0 && !o.layout.empty())
    return {nullptr, {concat("the same model in the ", o.layout, " layout")}};
  if (asked == 0 && !o.save.empty())
    return {nullptr, {concat("the same model in ", o.save)}};
  if (asked != 1) {
    throw Error(Exit::usage, asked == 0 ? "no edit was asked for"
                                        : fmt::format("{} edits were asked for", asked))
        .hint(
            "one of --upcycle, --split, --add, --remove, --merge, --quantise; several are several "
            "calls");
  }
  if (!o.upcycle.empty())
    return upcycle(model, o.upcycle, o.seed);
  if (!o.split.empty())
    return split_dense(model, o.split, o.seed);
  if (!o.add.empty())
    return add(o, model);
  return o.remove.empty() ? merge(o, model) : remove_experts(model, removed(o, model));
}

// Of a run that was edited.
RunState state_of(const Options& o, const RunState& from, const ModelConfig& to) {
  RunState s = from;
  s.step = 0;
  s.train.steps = 0;
  s.trace.clear();
  s.trace_rows = 0;
  s.steps_with_gradient.clear();
  s.model = to_spec(to);
  s.options = o.options;
  s.device = o.device.device;
  return s;
}

Json made_json(const LoadedModel& from, const ModelConfig& to,
               const std::vector<std::string>& changes) {
  return {{"format", "moe-edit"},     {"version", 1},
          {"moe", version_short()},   {"command", command_line()},
          {"created_utc", now_utc()}, {"from", from.checkpoint.path.string()},
          {"model", to_spec(to)},     {"changes", changes}};
}

// f32, bf16 or f16 of --save, or what the old model's numbers lie in.
StoredTypes types_of(const Options& o, const fs::path& from) {
  if (o.save.empty())
    return stored_types(from);
  return {.of = {},
          .usual = o.save == "bf16"  ? DType::bf16
                   : o.save == "f16" ? DType::f16
                                     : DType::f32};
}

TokenizerFiles tokenizer_kept(const LoadedModel& from) {
  const fs::path& path = from.checkpoint.path;
  if (fs::is_directory(path)) {
    TokenizerFiles out;
    out.kept = std::make_shared<const KeptFiles>(kept_files(path));
    return out;
  }
  const auto tokenizer = tokenizer_of(from);
  if (!tokenizer)
    return {};
  if (tokenizer->tokenizer_json().empty()) {
    warning(concat("the tokenizer inside ", in_quotes(path),
                   " is not written: a GGUF file holds it in its own form; put the tokenizer.json "
                   "of the published model beside the new one"));
  }
  return tokenizer_files(*tokenizer, false);
}

// Of numbers that no config.json speaks of.
void tell_rounding(const LoadedModel& from, bool again, const std::string& type) {
  if (!from.few_bits)
    return;
  note(again ? "the weights were quantised; they were decoded and rounded again"
             : concat("the weights were quantised; they stand as ", type, " now"));
}

void tell_left(const KeptFiles* kept) {
  if (!kept || kept->left.empty())
    return;
  constexpr std::size_t most_named = 4;
  std::vector<std::string> names(
      kept->left.begin(),
      kept->left.begin() + std::ptrdiff_t(std::min(most_named, kept->left.size())));
  note(fmt::format("not copied: {}{}", join(names), kept->left.size() > most_named ? ", ..." : ""));
}

// From GGUF to GGUF without --save: bytes are copied, so that only experts can go. The model is
// opened without its experts, for the trace that says which.
int slice(const Options& o, const fs::path& from) {
  const auto device = open_device(o.device);
  const LoadedModel loaded = load_model(from, *device, {.holding = {.numbers = Keep::cached}});
  for (const std::string& n : loaded.checkpoint.notes)
    warning(n);
  for (const std::string& c : slice_gguf(from, o.output, removed(o, *loaded.model)))
    fmt::print("{}\n", c);
  note(fmt::format("wrote {}: {} of {}", o.output, bytes_text(double(fs::file_size(o.output))),
                   bytes_text(double(GgufFile(from).size()))));
  return 0;
}

void tell_sizes(const ModelConfig& before, const ModelConfig& after) {
  const ModelCost a = cost_of(before, 1);
  const ModelCost b = cost_of(after, 1);
  fmt::print("parameters {} -> {}, active a token {} -> {}\n", a.parameters, b.parameters,
             a.active_parameters, b.active_parameters);
}

// A model of any kind as a GGUF file, edited on the way or as it is.
int convert(const Options& o) {
  const std::map<std::string, std::string> types = {
      {"f32", "F32"}, {"f16", "F16"}, {"bf16", "BF16"}, {"q8_0", "Q8_0"}, {"q4_0", "Q4_0"}};
  if (o.save.empty()) {
    throw Error(
        Exit::usage,
        concat("'", o.output, "' would be a GGUF file, and --save does not say of which type"))
        .hint("--save q8_0, q4_0, bf16, f16 or f32; from GGUF, --remove alone copies the bytes");
  }
  if (!o.layout.empty()) {
    throw Error(Exit::usage, "--layout is how experts lie in safetensors, and a GGUF file has one")
        .hint("leave --layout out");
  }
  const auto device = open_device(o.device);
  const LoadedModel loaded = load_model(o.model, *device);
  for (const std::string& n : loaded.checkpoint.notes)
    warning(n);
  const Edited result = edited(o, *loaded.model);
  Decoder<float>& model = result.model ? *result.model : *loaded.model;
  const SavedGguf saved = save_gguf(o.output, model, loaded, types.at(o.save));
  for (const std::string& n : saved.notes)
    warning(n);
  for (const std::string& c : result.changes)
    fmt::print("{}\n", c);
  tell_sizes(loaded.model->config(), model.config());
  tell_rounding(loaded, o.save.starts_with("q"), types.at(o.save));
  note(fmt::format("wrote {} ({}): {}", o.output, saved.architecture,
                   bytes_text(double(fs::file_size(o.output)))));
  return 0;
}

int to_gguf(const Options& o) {
  refuse_existing(o.output, false);
  const auto from = gguf_file_of(o.model);
  const bool others = !o.upcycle.empty() || !o.split.empty() || !o.add.empty() || !o.merge.empty();
  const bool copies = from && !others && !o.remove.empty() && o.save.empty();
  return copies ? slice(o, *from) : convert(o);
}

// Sum over the choices of an expert of weight times norm of what it put out: its REAP score times
// how often it was chosen.
ExpertScores importance(const Options& o, const Decoder<float>& model) {
  ExpertScores out = scores(o, model, ExpertScore::reap);
  const ExpertScores load = scores(o, model, ExpertScore::load);
  for (std::size_t l = 0; l < out.size(); ++l) {
    for (std::size_t e = 0; e < out[l].size(); ++e)
      out[l][e] *= load[l][e];
  }
  return out;
}

Quantisation quantised(const Options& o, Decoder<float>& model, const std::string& family,
                       const StoredTypes& types) {
  const QuantiseOptions how = quantise_options(o.quantise, o.bytes);
  const ExpertScores by = how.by == QuantiseBy::nothing ? ExpertScores{}
                          : how.by == QuantiseBy::load  ? scores(o, model, ExpertScore::load)
                                                        : importance(o, model);
  return quantise(model, family, how, by,
                  [&](const std::string& tensor) { return bytes_of(types.type(tensor)); });
}

std::vector<std::string> matrices_of(Decoder<float>& model, const std::string& family) {
  std::vector<std::string> out;
  for (const NamedTensor& t : store(model, family)) {
    if (t.dims.size() == 2)
      out.push_back(t.name);
  }
  return out;
}

// What was done is added to `changes`.
void add_quantised(const Options& o, const LoadedModel& loaded, Decoder<float>& model,
                   const StoredTypes& types, ModelFolder& folder, Json& config,
                   std::vector<std::string>& changes) {
  const std::string family = fit_like(model.config(), loaded.family).family;
  const Quantisation q = quantised(o, model, family, types);
  folder.few_bits = q.of;
  config = quantization_config(q.of, matrices_of(model, family));
  folder.quantization_config = &config;
  std::ranges::copy(q.changes, std::back_inserter(changes));
  changes.push_back(fmt::format("bytes of experts {} -> {} ({:.1f} %)", q.before, q.after,
                                100.0 * double(q.after) / double(q.before)));
}

// Writes the folder and tells what could not be kept; returns the family of the new model.
std::string save(const Options& o, const LoadedModel& loaded, Decoder<float>& model,
                 std::vector<std::string>& changes) {
  const TokenizerFiles files = tokenizer_kept(loaded);
  const StoredTypes types = types_of(o, loaded.checkpoint.path);
  std::optional<RunState> state;
  if (loaded.state)
    state = state_of(o, *loaded.state, model.config());
  Json made;
  Json config;
  ModelFolder folder{.state = state ? &*state : nullptr,
                     .tokenizer = files,
                     .type = [&](const std::string& tensor) { return types.type(tensor); },
                     .usual = types.usual,
                     .made = made,
                     .layout = o.layout == "packed" ? Layout::packed : Layout::published};
  if (!o.quantise.empty())
    add_quantised(o, loaded, model, types, folder, config, changes);
  made = made_json(loaded, model.config(), changes);
  const SavedModel saved = save_model(o.output, model, folder);
  for (const std::string& n : saved.notes)
    warning(n);
  if (saved.beside > 0) {
    note(
        fmt::format("{} tensors beside the language model (encoders of pictures or sounds, what "
                    "brings their rows into it) are kept as they were",
                    saved.beside));
  }
  tell_left(files.kept.get());
  return saved.family;
}

void refuse_quantise(const Options& o) {
  if (o.quantise.empty() && o.bytes > 0) {
    throw Error(Exit::usage, "--bytes is the limit of --quantise, which is not given")
        .hint("--quantise 'experts=int8|int4' --bytes 0.3");
  }
  if (o.quantise.empty())
    return;
  if (o.output.ends_with(".gguf")) {
    throw Error(Exit::usage, "--quantise writes safetensors, and the output is a GGUF file")
        .hint("-o FOLDER; of a GGUF file --save q8_0 or q4_0");
  }
  if (o.layout == "packed") {
    throw Error(Exit::usage,
                "formats of few bits are for one matrix a tensor, not for --layout packed")
        .hint("leave --layout out");
  }
}

int edit(const Options& o) {
  refuse_quantise(o);
  if (o.output.ends_with(".gguf"))
    return to_gguf(o);
  if (o.save == "q8_0" || o.save == "q4_0") {
    throw Error(Exit::usage, concat(o.save, " is a type of GGUF files, and the output is a folder"))
        .hint("-o NAME.gguf, or --save bf16");
  }
  if (fs::exists(o.output)) {
    throw Error(Exit::usage, concat("'", o.output, "' exists"))
        .hint("another -o")
        .safe("it was not touched");
  }
  const auto device = open_device(o.device);
  LoadedModel loaded = load_model(o.model, *device);
  for (const std::string& n : loaded.checkpoint.notes)
    warning(n);
  Edited result = edited(o, *loaded.model);
  Decoder<float>& model = result.model ? *result.model : *loaded.model;
  const std::string family = save(o, loaded, model, result.changes);
  for (const std::string& c : result.changes)
    fmt::print("{}\n", c);
  tell_sizes(loaded.model->config(), model.config());
  if (gguf_file_of(o.model))
    tell_rounding(loaded, !o.quantise.empty(), o.save.empty() ? "f32" : o.save);
  note(fmt::format("wrote {} ({}); train it on with: moe train --init {} --data ... -o NEW",
                   o.output, family, o.output));
  return 0;
}

void add_edits(CommandLine& cli, Options& o) {
  cli.add_option("--upcycle", o.upcycle,
                 "dense to sparse: copy:experts=8,k=2,noise=0.01 | granular:shards=4,expansion=2; "
                 "every=n for each n-th layer")
      .group("edits");
  cli.add_option("--split", o.split,
                 "cut the dense feed-forward into experts: experts=4,k=4,order=index|random")
      .group("edits");
  cli.add_option("--add", o.add,
                 "N more experts in each layer, copies of the first (of the busiest with --trace): "
                 "2,noise=0.01")
      .group("edits");
  cli.add_option(
         "--remove", o.remove,
         "load:count=2 | reap:count=2 (least first, by --trace), or names LAYER:EXPERT: 0:3,1:5")
      .group("edits");
  cli.add_option("--merge", o.merge,
                 "like experts become their mean: threshold=0.9 | count=4 (that many stay), "
                 "by=weights|outputs, mean=equal|load|weight (by --trace), align=0|1 (put hidden "
                 "units in one order)")
      .group("edits");
  cli.add_option("--quantise", o.quantise,
                 "experts in few bits: experts=int8|int8:block=32|int4|fp8|mxfp4, "
                 "by=load|importance (by --trace) with keep=10% (that share stays); several "
                 "formats with --bytes: one is chosen for each expert")
      .group("edits");
  cli.add_option("--bytes", o.bytes,
                 "of --quantise: at most this share of the bytes that the experts take now")
      .check(real(0, 1));
}

}  // namespace

Run edit_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("model", o->model, "a run, a checkpoint, a Hugging Face folder, or a GGUF file")
      .required();
  cli.add_option("-o,--output", o->output,
                 "the folder to make, which is the new checkpoint; or NAME.gguf, a file for "
                 "llama.cpp, with --save (from GGUF by --remove alone, bytes are copied)")
      .required();
  add_edits(cli, *o);
  cli.add_option("--trace", o->trace, "a trace of this checkpoint: who was used");
  cli.add_option(
         "--save", o->save,
         "the type of the new numbers: f32, bf16 or f16, of GGUF files also q8_0 and q4_0; default "
         "of folders: as they were, tensor by tensor; alone: the same model in that type")
      .type_name("TYPE")
      .check(one_of({"f32", "bf16", "f16", "q8_0", "q4_0"}));
  cli.add_option("--layout", o->layout,
                 "how experts lie in the new file: published, or packed in two tensors a layer, as "
                 "transformers 5 holds them; alone: the same model in that layout")
      .type_name("LAYOUT")
      .check(one_of({"published", "packed"}));
  cli.add_option("--seed", o->seed, "of noise and new router rows").show_default().check(whole(0));
  add_device(cli, o->device);
  add_config(cli);
  return run_with(cli, std::move(o), edit);
}

}  // namespace moe
