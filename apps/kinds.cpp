// The registries as lists of names, for `moe list`, `moe help` and completions.
#include "apps/kinds.h"

#include "analysis/compare/conventions.h"
#include "analysis/metric/metric.h"
#include "analysis/metric/place_plan.h"
#include "analysis/report/render.h"
#include "analysis/synth/synth.h"
#include "apps/command.h"
#include "datasets/dataset.h"
#include "lib/backend/backend.h"
#include "lib/balance/balancer.h"
#include "lib/core/spec_lists.h"
#include "lib/export/export.h"
#include "lib/export/placement.h"
#include "lib/import/import.h"
#include "lib/model/config.h"
#include "lib/model/fields.h"
#include "lib/model/mixer_type.h"
#include "lib/plan/cluster.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"
#include "lib/study/builtin.h"
#include "lib/study/measure.h"

namespace moe {
namespace {

// Specs separated by spaces, each as a shell is given it.
std::string for_shells(std::string_view specs) {
  std::vector<std::string> out;
  for (const std::string& spec : split(specs, ' '))
    out.push_back(shell_quoted(spec));
  return join(out, " ");
}

template <class R>
Kind kind(std::string_view name, std::string_view title, const R& registry) {
  Kind k{name, title, {}};
  for (const auto& e : registry.entries())
    k.rows.push_back({std::string(e.name), std::string(e.about), for_shells(e.examples)});
  return k;
}

Kind convention_kind() {
  Kind out{"conventions", "Conventions of other tools (moe report --convention)", {}};
  for (const ToolConvention& c : conventions()) {
    std::vector<std::string> figures;
    for (const Upstream& u : upstream_figures()) {
      if (u.convention == c.name)
        figures.emplace_back(u.name);
    }
    out.rows.push_back({std::string(c.name), std::string(c.about), join(figures)});
  }
  return out;
}

Kind model_kind() {
  Kind out{"models", "Models (--model)", {}};
  for (const Preset& p : model_presets())
    out.rows.push_back({std::string(p.name), std::string(p.about), ""});
  return out;
}

Kind field_kind() {
  Kind out{
      "fields", "Fields of a model (--model PRESET:field=value; docs/fields.md)", {}, "source"};
  for (const ModelField& f : model_fields()) {
    out.rows.push_back(
        {std::string(f.name),
         concat(f.about, f.initial.empty() ? "" : concat(" [default ", f.initial, "]")),
         std::string(f.source)});
  }
  return out;
}

Kind activation_kind() {
  Kind out{"activations", "Activations (--model ...:activation=)", {}};
  for (const std::string& a : activation_names())
    out.rows.push_back({a, is_gated(activation_of(a)) ? "gated" : "ungated", ""});
  return out;
}

// The registry, and what is made of the run's own text or of a file.
Kind tokenizer_kind() {
  Kind out = kind("tokenizers", "Tokenizers (--tokenizer)", tokenizers());
  out.rows.push_back({"bpe", "byte-level byte pairs, trained on the text of --data",
                      "bpe:vocab=4096 bpe:vocab=8192,pattern=llama3,frequency=2"});
  out.rows.push_back({"FILE", "a tokenizer.json, or a folder with one", "Qwen3/tokenizer.json"});
  return out;
}

Kind study_kind() {
  Kind out{"studies", "Studies (moe study)", {}};
  for (const BuiltInStudy& s : built_in_studies()) {
    const Study study = parse_study(s.text, std::string(s.name), {});
    out.rows.push_back({std::string(s.name), study.about, ""});
  }
  return out;
}

Kind layout_kind() {
  Kind out{"layouts", "Keys of a layout on a cluster (moe plan --layout)", {}};
  for (const plan::LayoutKey& k : plan::layout_keys()) {
    out.rows.push_back({std::string(k.key), concat(k.about, " [default ", k.initial, "]"),
                        concat(k.key, "=", k.initial)});
  }
  return out;
}

Kind verb_kind() {
  Kind out{"commands", "Verbs", {}};
  for (const auto& e : commands().entries()) {
    out.rows.push_back({std::string(e.name), std::string(e.about),
                        std::string(e.examples.substr(0, e.examples.find('|')))});
  }
  return out;
}

}  // namespace

std::vector<Kind> kinds() {
  return {
      kind("routers", "Routers (--router)", routers()),
      kind("balancers", "Balancers (--balance, repeatable)", balancers()),
      kind("capacities", "Capacity rules (--capacity)", capacities()),
      kind("mixers", "Mixers (--model ...:mixer=)", mixers()),
      kind("datasets", "Datasets (--data, repeatable)", datasets()),
      tokenizer_kind(),
      kind("devices", "Devices (--device)", backends()),
      kind("metrics", "Metrics (moe report --metric)", metrics()),
      kind("measures", "What studies measure beside metric ids (moe study)", measures()),
      study_kind(),
      kind("patterns", "Patterns of made-up traces (moe synth)", patterns()),
      kind("imports", "Recordings of other engines (moe import --from)", importers()),
      kind("policies", "Policies of placement (moe place --policy)", place_policies()),
      kind("placements", "Files that a placement becomes (moe place --to)", placement_formats()),
      kind("exports", "Files that a trace becomes (moe export --to)", exporters()),
      kind("formats", "Formats (--format)", renderers()),
      convention_kind(),
      model_kind(),
      field_kind(),
      activation_kind(),
      layout_kind(),
      verb_kind()};
}

}  // namespace moe
