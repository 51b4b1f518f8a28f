// moe plan: what a model takes — parameters, products, memory, what travels — from its sizes alone:
// a published model by name, any config.json, a run, or one of our own specs. Nothing is built;
// several models make a table.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/output.h"
#include "apps/plan_cluster.h"
#include "apps/plan_machine.h"
#include "apps/plan_tables.h"
#include "apps/values.h"
#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/plan/published.h"
#include "lib/plan/towers.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> models;
  Count context = 4096;
  plan::Sharding sharding;
  std::string weights;
  bool context_given = false;
  MachineOptions machine;
  OutputOptions out;
};

std::string lower(std::string s) {
  std::ranges::transform(s, s.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return s;
}

[[noreturn]] void unknown(const std::string& word) {
  if (word.find('/') != word.npos &&
      (word.starts_with('.') || word.starts_with('/') || word.ends_with(".json"))) {
    throw Error(Exit::input, concat("there is no '", word, "'"))
        .hint(
            "a config.json, a folder with one, or a published model by name: moe plan lists them");
  }
  std::vector<std::string> names, shown;
  for (const auto& m : plan::published_models()) {
    names.push_back(lower(std::string(m.name)));
    shown.emplace_back(m.name);
  }
  for (const auto& p : model_presets()) {
    names.emplace_back(p.name);
    shown.emplace_back(p.name);
  }
  const std::string near = nearest(lower(word), names);
  const auto at = std::ranges::find(names, near);
  throw Error(Exit::usage, concat("no model, file or folder named '", word, "'"))
      .hint(concat(near.empty() ? "" : concat("'", shown[at - names.begin()], "'; "),
                   "moe plan lists the published models, moe list models our own"));
}

Architecture described(const std::string& word) {
  std::error_code none;
  if (fs::exists(word, none))
    return plan::describe_path(word);
  if (const auto* model = plan::find_published(word))
    return plan::describe(*model);
  const std::string name = word.substr(0, word.find(':'));
  if (std::ranges::any_of(model_presets(), [&](const Preset& p) { return p.name == name; }))
    return plan::describe(model_config(word), word);
  unknown(word);
}

// A model as it was named, with what its file says of the bytes of its weights.
NamedModel named(const std::string& word, const std::string& weights) {
  NamedModel out{.word = word, .shape = described(word)};
  std::error_code none;
  if (!weights.empty() && weights != own_format)
    out.weights = plan::storage_of(weights);
  else if (fs::exists(word, none))
    out.weights = plan::own_storage_of_path(word);
  else if (const auto* model = plan::find_published(word))
    out.weights = plan::own_storage(parse_json(model->config, model->name), word);
  else
    out.weights = plan::storage_of("f32");  // of what moe train writes
  return out;
}

// The plan of one model, and what stands beside its language model.
Report single_plan(const std::string& word, const Architecture& shape, const PlanOptions& options) {
  Report r = plan_of(shape, options);
  std::error_code none;
  std::vector<TowerPart> towers;
  if (fs::exists(word, none))
    towers = plan::towers_of_path(word);
  else if (const auto* model = plan::find_published(word))
    towers = plan::towers_of(parse_json(model->config, model->name));
  if (!towers.empty()) {
    r.tables.insert(r.tables.begin() + 1, towers_table(towers, double(parameters(shape).total)));
  }
  return r;
}

// Options of plans without a machine that a machine would not read.
void check_beside_machine(const Options& o) {
  if (o.sharding.devices() > 1) {
    throw Error(Exit::usage, "--ep, --tp and --zero are of plans without a machine")
        .hint("--devices N with --device, --layout ep=8,tp=2 with --cluster");
  }
  const bool trains = !o.machine.cluster.empty() && o.machine.simulate.empty();
  if (trains && !o.weights.empty()) {
    throw Error(Exit::usage, "--weights is of serving, and --cluster trains")
        .hint("bits=16 in --layout: operands of products");
  }
  if (trains && o.context_given) {
    throw Error(Exit::usage, "--context is of serving, and --cluster trains")
        .hint("sequence=8192 in --layout");
  }
}

int run_plan(const Options& o) {
  check_output(o.out);
  Report report;
  if (o.machine.published) {
    write_report(published_runs_report(), o.out);
    return 0;
  }
  if (o.models.empty()) {
    if (wanted(o.machine))
      throw Error(Exit::usage, "no model is named").hint("moe plan DeepSeek-V3 --device h100");
    report.title = "Published models that moe plan has by name";
    report.tables.push_back(published_table());
    write_report(report, o.out);
    return 0;
  }
  std::vector<NamedModel> models;
  for (const std::string& word : o.models) {
    models.push_back(named(word, o.weights));
    check(o.sharding, models.back().shape);
  }
  if (wanted(o.machine)) {
    check_beside_machine(o);
    write_report(machine_report(models, o.machine, o.context), o.out);
    return 0;
  }
  PlanOptions options{.context = o.context, .sharding = o.sharding};
  if (!o.weights.empty())
    options.weights = models[0].weights;
  std::vector<Architecture> shapes;
  for (NamedModel& m : models)
    shapes.push_back(std::move(m.shape));
  write_report(shapes.size() == 1 ? single_plan(o.models[0], shapes[0], options)
                                  : comparison_of(shapes, options),
               o.out);
  return 0;
}

}  // namespace

Run plan_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option(
      "model", o->models,
      "a published model by name, a config.json, a folder with one, a GGUF file, a run, or a spec "
      "such as tiny:experts=64; several make a table; none lists the names");
  cli.add_option("--context", o->context, "tokens that attention looks back on")
      .type_name("N")
      .show_default()
      .check(whole(1, 100'000'000));
  cli.add_option("--ep", o->sharding.experts, "ranks that the experts are spread over")
      .type_name("N")
      .show_default()
      .check(whole(1, 1'000'000));
  cli.add_option("--tp", o->sharding.tensor, "ranks that every matrix is cut over")
      .type_name("N")
      .show_default()
      .check(whole(1, 1'000'000));
  cli.add_option("--zero", o->sharding.zero,
                 "data-parallel ranks that share weights, gradients and moments (ZeRO-3)")
      .type_name("N")
      .show_default()
      .check(whole(1, 1'000'000));
  cli.add_option("--weights", o->weights,
                 "format of the weights that serve: own (as the published file), f32, bf16, int8, "
                 "fp8, mxfp4, or one of GGUF such as q4_k; default: bf16, with --device own")
      .type_name("NAME");
  add_machine(cli, o->machine);
  add_output(cli, o->out, "where the plan goes");
  add_config(cli);
  return [o, cli] {
    o->context_given = cli.given("--context");
    return run_plan(*o);
  };
}

}  // namespace moe
