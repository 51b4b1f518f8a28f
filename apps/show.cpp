// moe show: what a run, a checkpoint, a GGUF file or a trace is, without running anything.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "lib/checkpoint/stored.h"
#include "lib/core/error.h"
#include "lib/family/gguf_model.h"
#include "lib/files/gguf.h"
#include "lib/model/cost.h"
#include "lib/model/fields.h"
#include "lib/run/run_folder.h"
#include "lib/trace/reader.h"
#include "lib/trace/step_counts.h"

namespace moe {
namespace {

using Facts = std::vector<std::pair<std::string, std::string>>;

std::string step_text(std::int64_t step) {
  return step < 0 ? "unknown" : fmt::format("{}", step);
}

// 0 = not known, of engines that only count
Cells choices(const std::vector<TraceLayer>& layers) {
  std::vector<std::int64_t> whole;
  std::vector<double> where_known;
  for (const TraceLayer& l : layers) {
    whole.push_back(l.top_k);
    where_known.push_back(l.top_k > 0 ? double(l.top_k) : NAN);
  }
  if (std::ranges::find(whole, 0) == whole.end())
    return whole;
  return where_known;
}

// Where a trace was recorded with another k than the model was trained with.
void add_trained_k(Table& t, const std::vector<TraceLayer>& layers) {
  std::vector<std::int64_t> trained;
  bool other = false;
  for (const TraceLayer& l : layers) {
    trained.push_back(l.trained_top_k ? l.trained_top_k : l.top_k);
    other = other || trained.back() != l.top_k;
  }
  if (other) {
    t.columns.insert(t.columns.begin() + 3,
                     {.name = "trained k",
                      .meaning = "of the model; k is what it was recorded with",
                      .cells = trained});
  }
}

// Where some layers look experts up.
void add_rule(Table& t, const std::vector<TraceLayer>& layers) {
  if (std::ranges::none_of(layers, &TraceLayer::by_table))
    return;
  std::vector<std::string> rule;
  for (const TraceLayer& l : layers)
    rule.emplace_back(l.by_table ? "table" : "scores");
  t.columns.push_back({.name = "chosen by",
                       .meaning = "table: of token ids, which the scores only weigh",
                       .cells = rule});
}

// Where experts of some layers are those of attention.
void add_part(Table& t, const std::vector<TraceLayer>& layers) {
  if (std::ranges::none_of(layers, &TraceLayer::attention))
    return;
  std::vector<std::string> part;
  for (const TraceLayer& l : layers)
    part.emplace_back(l.attention ? "attention heads" : "feed-forwards");
  t.columns.push_back({.name = "experts are",
                       .meaning = "heads: an expert is queries and outputs of some",
                       .cells = part});
}

Table layers_table(const std::vector<TraceLayer>& layers) {
  std::vector<std::int64_t> number, experts, shared, groups;
  std::vector<std::string> score, norm;
  std::vector<double> capacity;
  for (const TraceLayer& l : layers) {
    number.push_back(l.index);
    experts.push_back(l.experts);
    shared.push_back(l.shared);
    groups.push_back(l.n_group);
    score.emplace_back(l.score_fn == ScoreFn::softmax   ? "softmax"
                       : l.score_fn == ScoreFn::sigmoid ? "sigmoid"
                       : l.score_fn == ScoreFn::other   ? "other"
                                                        : "unknown");
    norm.emplace_back(l.norm_topk == 1 ? "yes" : l.norm_topk == 0 ? "no" : "unknown");
    capacity.push_back(std::isnan(l.capacity_factor) ? NAN : double(l.capacity_factor));
  }
  Table t{.id = "layers", .title = "MoE layers"};
  t.columns = {
      {.name = "layer", .cells = number},
      {.name = "experts", .cells = experts},
      {.name = "k", .cells = choices(layers), .digits = 0},
      {.name = "shared", .cells = shared},
      {.name = "groups", .cells = groups},
      {.name = "score", .cells = score},
      {.name = "normalised", .cells = norm},
      {.name = "capacity", .meaning = "factor; empty = no limit", .cells = capacity, .digits = 2}};
  add_trained_k(t, layers);
  add_rule(t, layers);
  add_part(t, layers);
  return t;
}

bool holds_counts(const TraceReader& trace) {
  return trace.tokens() == 0 && trace.count_steps() > 0;
}

// "600 tokens", or "counts of 7 steps" of an engine that only counts
std::string size_of(const TraceReader& trace) {
  const std::uint64_t steps = trace.count_steps();
  return holds_counts(trace) ? fmt::format("counts of {} {}", steps, steps == 1 ? "step" : "steps")
                             : fmt::format("{} tokens", trace.tokens());
}

// "324", or "1612 to 1755" where layers differ
std::string assignments_of(const TraceReader& trace) {
  const TraceHeader& h = trace.header();
  const auto read = [&](std::uint64_t first, std::uint64_t count) {
    return StepCounts{first, trace.counts(first, count), h.max_experts()};
  };
  const CountSurvey survey(h, trace.steps(), trace.count_steps(), read);
  std::vector<std::int64_t> each;
  for (const CountedLayer& l : survey.layers())
    each.push_back(l.assignments);
  const auto [least, most] = std::ranges::minmax(each);
  return least == most ? fmt::format("{}", most) : fmt::format("{} to {}", least, most);
}

// "300 sequences with a grid of 4 x 4", or "300 sequences with grids"; nothing where none has.
std::string pictures_of(const TraceReader& trace) {
  std::set<std::pair<int, int>> grids;
  std::size_t count = 0;
  for (const TraceSequence& s : trace.sequences()) {
    if (s.grid.places() == 0)
      continue;
    ++count;
    grids.emplace(s.grid.rows, s.grid.columns);
  }
  if (count == 0)
    return "";
  if (grids.size() > 1)
    return fmt::format("{} sequences with grids", count);
  return fmt::format("{} {} with a grid of {} x {}", count, count == 1 ? "sequence" : "sequences",
                     grids.begin()->first, grids.begin()->second);
}

Facts trace_facts(const TraceReader& trace, const std::string& path) {
  const TraceHeader& h = trace.header();
  const TraceState& s = trace.state();
  Facts facts = {
      {"state",
       s.complete ? "complete"
                  : fmt::format("interrupted: {} committed rows can be used, {} behind them cannot",
                                s.tokens, s.ignored)},
      {"producer", h.producer},
      {"engine", h.engine},
      {"model", h.model_id},
      {"checkpoint step", step_text(h.checkpoint_step)},
      {"weights xxh3", h.weights_xxh3},
      {"run id", h.run_id},
      {"earlier runs", h.lineage},
      {"command", h.command},
      {"seed", fmt::format("{}", h.seed)},
      {"created", h.created_utc},
      {"tokenizer", h.tokenizer_id},
      {"vocabulary", fmt::format("{}", h.vocab_size)},
      {"format", h.format_version},
      {"capture point", h.capture_point},
      {"corpus sha256", holds_counts(trace) ? "" : s.corpus_sha256},
      {"assignments in a layer", holds_counts(trace) ? assignments_of(trace) : ""},
      {"sequences", holds_counts(trace) ? "" : fmt::format("{}", trace.sequences().size())},
      {"domains", join(h.domains)},
      {"modalities", join(h.modalities)},
      {"pictures", pictures_of(trace)},
      {"size", bytes_text(double(std::filesystem::file_size(path)))}};
  std::erase_if(facts, [](const auto& f) { return f.second.empty(); });
  return facts;
}

Report show_trace(const std::string& path) {
  const TraceReader trace(path);
  const std::vector<TraceLayer>& layers = trace.header().layers;
  Report r{.title = fmt::format("{}: {} x {} MoE layers", path, size_of(trace), layers.size())};
  r.facts = trace_facts(trace, path);
  r.warnings = trace.state().warnings;
  r.tables.push_back(layers_table(layers));
  return r;
}

// How a run of ours was trained; nothing of a checkpoint from elsewhere.
Facts training_facts(const LoadedModel& loaded) {
  if (!loaded.state)
    return {};
  const RunState& s = *loaded.state;
  return {
      {"horizon", fmt::format("{} steps of {} tokens", s.train.steps, s.train.tokens_per_step())},
      {"data", join(s.data, " ")},
      {"seed", fmt::format("{}", s.train.seed)},
      {"trained on", s.device}};
}

// `all`: every field, not only those that differ from the preset.
Facts model_facts(const LoadedModel& loaded, const ModelCost& cost, bool all) {
  const ModelConfig& c = loaded.model->config();
  const Fit fit = fit_of(c);
  const std::string brief = spec_beside_preset(c);
  const std::string whole = to_spec(c);
  return {{"model", all ? whole : brief},
          {"other fields", all || brief == whole ? "" : "as the preset has them: --all"},
          {"parameters", fmt::format("{}", cost.parameters)},
          {"active parameters", fmt::format("{}", cost.active_parameters)},
          {"MoE layers", fmt::format("{} of {}", c.moe_layers(), c.layers)},
          {"tokenizer", loaded.tokenizer},
          {"family", loaded.family},
          {"family verified by", verification(loaded.family)},
          {"opens in transformers",
           fit.family == "moe" ? "no: " + fit.reason : "yes, as " + fit.family}};
}

// What the tensors of one format take.
struct Share {
  std::int64_t tensors = 0, numbers = 0, bytes = 0;
};
using Shares = std::map<std::string, Share>;  // by format

Shares shares_of(const GgufFile& file) {
  Shares out;
  for (const GgufTensor& t : file.tensors()) {
    Share& s = out[std::string(t.type->name)];
    ++s.tensors;
    s.numbers += t.size();
    s.bytes += t.bytes;
  }
  return out;
}

// Scales and what else stands beside a matrix count as bytes of its format.
Shares shares_of(const Tensors& tensors) {
  Shares out;
  std::string matrix;  // the last one; what belongs to it follows, for names are sorted
  for (const TensorInfo& t : tensors.list()) {
    const bool beside = numbers_in_file(t) == 0;
    if (!beside)
      matrix = format_in_file(t);
    Share& s = out[matrix];
    s.tensors += !beside;
    s.numbers += std::int64_t(numbers_in_file(t));
    s.bytes += t.bytes;
  }
  return out;
}

// The largest share first.
Table types_table(const Shares& shares) {
  std::vector<std::pair<std::string, Share>> sorted(shares.begin(), shares.end());
  std::ranges::stable_sort(sorted, std::greater<>(), [](const auto& s) { return s.second.bytes; });
  std::vector<std::string> type;
  std::vector<std::int64_t> tensors, numbers, bytes;
  for (const auto& [name, s] : sorted) {
    type.emplace_back(name);
    tensors.push_back(s.tensors);
    numbers.push_back(s.numbers);
    bytes.push_back(s.bytes);
  }
  Table t{.id = "types", .title = "Formats of the tensors"};
  t.columns = {{.name = "format", .cells = type},
               {.name = "tensors", .cells = tensors},
               {.name = "numbers", .cells = numbers},
               {.name = "bytes", .cells = bytes}};
  return t;
}

Report show_model(const std::string& path, bool all) {
  const auto device = make_backend("reference");
  const LoadedModel loaded =
      load_model(path, *device, {.holding = {.numbers = Keep::as_fits}, .head = Head::optional});
  const ModelConfig& c = loaded.model->config();
  const Index tokens =
      loaded.state ? loaded.state->train.sequences * loaded.state->train.length : c.context;
  const ModelCost cost = cost_of(c, tokens);
  Report r{.title = fmt::format("{}: {} parameters, {} active a token", path,
                                count_text(double(cost.parameters)),
                                count_text(double(cost.active_parameters)))};
  r.facts = {{"checkpoint", loaded.checkpoint.path.string()},
             {"step", step_text(loaded.checkpoint.step)}};
  for (const Facts& facts : {training_facts(loaded), model_facts(loaded, cost, all)})
    r.facts.insert(r.facts.end(), facts.begin(), facts.end());
  std::erase_if(r.facts,
                [](const auto& f) { return f.first == "other fields" && f.second.empty(); });
  r.warnings = loaded.checkpoint.notes;
  if (loaded.few_bits)
    r.tables.push_back(types_table(shares_of(Tensors(loaded.checkpoint.path))));
  return r;
}

// From keys and the list of tensors alone, so that it takes no memory of the model's size.
Report show_gguf(const std::filesystem::path& path) {
  const GgufFile file(path);
  const GgufModel model = open_gguf(path);
  const ModelConfig& c = model.published.config;
  const ModelCost cost = cost_of(c, c.context);
  const double bytes = double(file.size());
  Report r{.title = fmt::format("{}: {} parameters, {} active a token", path.string(),
                                count_text(double(cost.parameters)),
                                count_text(double(cost.active_parameters)))};
  r.facts = {{"architecture", file.text("general.architecture")},
             {"name", file.text("general.name", "")},
             {"model", to_spec(c)},
             {"parameters", fmt::format("{}", cost.parameters)},
             {"active parameters", fmt::format("{}", cost.active_parameters)},
             {"MoE layers", fmt::format("{} of {}", c.moe_layers(), c.layers)},
             {"bits a parameter", fmt::format("{:.2f}", 8 * bytes / double(cost.parameters))},
             {"tokenizer", file.text("tokenizer.ggml.model", "none")},
             {"split of text", file.text("tokenizer.ggml.pre", "")},
             {"family", model.published.family},
             {"family verified by", verification(model.published.family)},
             {"size", bytes_text(bytes)}};
  std::erase_if(r.facts, [](const auto& f) { return f.second.empty(); });
  r.warnings = model.notes;
  r.tables.push_back(types_table(shares_of(file)));
  return r;
}

Report show(const std::string& path, bool all) {
  if (const auto gguf = gguf_file_of(path))
    return show_gguf(*gguf);
  return std::filesystem::is_directory(path) ? show_model(path, all) : show_trace(path);
}

}  // namespace

Run show_command(CommandLine& cli) {
  struct Options {
    std::string path;
    bool all = false;
    OutputOptions out;
  };
  auto o = std::make_shared<Options>();
  cli.add_option("path", o->path, "a run, a checkpoint, a GGUF file, or a trace").required();
  cli.add_flag("--all", o->all,
               "every field of a model; without it those that differ from its preset");
  add_output(cli, o->out, "where the description goes");
  return [o] {
    check_output(o->out);
    if (!std::filesystem::exists(o->path))
      throw Error(Exit::input, concat("there is no '", o->path, "'"));
    write_report(show(o->path, o->all), o->out);
    return 0;
  };
}

}  // namespace moe
