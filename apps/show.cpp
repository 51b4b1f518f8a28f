// moe show: what a run, a checkpoint or a trace is, without running anything.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "lib/core/error.h"
#include "lib/family/families.h"
#include "lib/model/cost.h"
#include "lib/run/run_folder.h"
#include "lib/trace/reader.h"

namespace moe {
namespace {

std::string step_text(std::int64_t step) {
  return step < 0 ? "unknown" : fmt::format("{}", step);
}

Table layers_table(const std::vector<TraceLayer>& layers) {
  std::vector<std::int64_t> number, experts, k, shared, groups;
  std::vector<std::string> score, norm;
  std::vector<double> capacity;
  for (const TraceLayer& l : layers) {
    number.push_back(l.index);
    experts.push_back(l.experts);
    k.push_back(l.top_k);
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
      {.name = "k", .cells = k},
      {.name = "shared", .cells = shared},
      {.name = "groups", .cells = groups},
      {.name = "score", .cells = score},
      {.name = "normalised", .cells = norm},
      {.name = "capacity", .meaning = "factor; empty = no limit", .cells = capacity, .digits = 2}};
  return t;
}

Report show_trace(const std::string& path) {
  const TraceReader trace(path);
  const TraceHeader& h = trace.header();
  const TraceState& s = trace.state();
  Report r{.title = fmt::format("{}: {} tokens x {} MoE layers", path, s.tokens, h.layers.size())};
  r.facts = {
      {"state",
       s.complete ? "complete"
                  : fmt::format("interrupted: {} committed rows can be used, {} behind them cannot",
                                s.tokens, s.ignored)},
      {"producer", h.producer},
      {"engine", h.engine},
      {"model", h.model_id},
      {"checkpoint step", step_text(h.checkpoint_step)},
      {"command", h.command},
      {"seed", fmt::format("{}", h.seed)},
      {"created", h.created_utc},
      {"tokenizer", h.tokenizer_id},
      {"vocabulary", fmt::format("{}", h.vocab_size)},
      {"format", h.format_version},
      {"capture point", h.capture_point},
      {"corpus sha256", s.corpus_sha256},
      {"sequences", fmt::format("{}", trace.sequences().size())},
      {"domains", join(h.domains)},
      {"size", bytes_text(double(std::filesystem::file_size(path)))}};
  std::erase_if(r.facts, [](const auto& f) { return f.second.empty(); });
  r.warnings = s.warnings;
  r.tables.push_back(layers_table(h.layers));
  return r;
}

using Facts = std::vector<std::pair<std::string, std::string>>;

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

Facts model_facts(const LoadedModel& loaded, const ModelCost& cost) {
  const ModelConfig& c = loaded.model->config();
  const Fit fit = fit_of(c);
  return {{"model", to_spec(c)},
          {"parameters", fmt::format("{}", cost.parameters)},
          {"active parameters", fmt::format("{}", cost.active_parameters)},
          {"MoE layers", fmt::format("{} of {}", c.moe_layers(), c.layers)},
          {"tokenizer", loaded.tokenizer},
          {"family", loaded.family},
          {"family verified by", verification(loaded.family)},
          {"opens in transformers",
           fit.family == "moe" ? "no: " + fit.reason : "yes, as " + fit.family}};
}

Report show_model(const std::string& path) {
  const auto device = make_backend("reference");
  const LoadedModel loaded = load_model(path, *device);
  const ModelConfig& c = loaded.model->config();
  const Index tokens =
      loaded.state ? loaded.state->train.sequences * loaded.state->train.length : c.context;
  const ModelCost cost = cost_of(c, tokens);
  Report r{.title = fmt::format("{}: {} parameters, {} active a token", path,
                                count_text(double(cost.parameters)),
                                count_text(double(cost.active_parameters)))};
  r.facts = {{"checkpoint", loaded.checkpoint.path.string()},
             {"step", step_text(loaded.checkpoint.step)}};
  for (const Facts& facts : {training_facts(loaded), model_facts(loaded, cost)})
    r.facts.insert(r.facts.end(), facts.begin(), facts.end());
  r.warnings = loaded.checkpoint.notes;
  return r;
}

}  // namespace

Run show_command(CommandLine& cli) {
  struct Options {
    std::string path;
    OutputOptions out;
  };
  auto o = std::make_shared<Options>();
  cli.add_option("path", o->path, "a run, a checkpoint, or a trace").required();
  add_output(cli, o->out, "where the description goes");
  return [o] {
    check_output(o->out);
    if (!std::filesystem::exists(o->path))
      throw Error(Exit::input, concat("there is no '", o->path, "'"));
    write_report(std::filesystem::is_directory(o->path) ? show_model(o->path) : show_trace(o->path),
                 o->out);
    return 0;
  };
}

}  // namespace moe
