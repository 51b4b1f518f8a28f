#include "lib/model/fields.h"

#include <algorithm>

#include "lib/core/text.h"

namespace moe {
namespace {

struct Row {
  std::string_view name, about, source;
};
constexpr Row rows[] = {
#define FIELD(name, about, source) {#name, about, source},
#include "lib/model/fields.def"
#undef FIELD
};

// A value a row of fields.def, in its order; "" of fields that the spec does not name.
std::vector<std::string> values_of(const ModelConfig& config) {
  Spec written(to_full_spec(config));
  std::vector<std::string> out;
  for (const Row& r : rows)
    out.push_back(written.has(r.name) ? written.get(r.name, "") : "");
  written.done();
  return out;
}

std::string cell(std::string_view text) {  // a bar would end the column
  std::string out;
  for (const char c : text)
    out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

constexpr const char* page_head = R"(# Fields of a model

Every field of `--model PRESET:field=value,...`, with the value that it has where neither the preset
nor you give one. `moe list models` shows the presets, `moe show RUN` which fields of a run differ
from its preset. Sizes count numbers, not bytes. This page is written from `lib/model/fields.def`; a
test keeps the two in step.

| field | default | what it is | whose |
|---|---|---|---|
)";

}  // namespace

const std::vector<ModelField>& model_fields() {
  static const std::vector<ModelField> all = [] {
    const std::vector<std::string> initial = values_of(ModelConfig{});
    std::vector<ModelField> out;
    for (std::size_t i = 0; i < std::size(rows); ++i)
      out.push_back({rows[i].name, rows[i].about, rows[i].source, initial[i]});
    return out;
  }();
  return all;
}

std::string fields_page() {
  std::string out = page_head;
  for (const ModelField& f : model_fields()) {
    out += concat("| `", f.name, "` | ", f.initial.empty() ? "" : concat("`", f.initial, "`"),
                  " | ", cell(f.about), " | ", cell(f.source), " |\n");
  }
  return out;
}

std::string spec_beside_preset(const ModelConfig& config) {
  const bool known = std::ranges::any_of(model_presets(),
                                         [&](const Preset& p) { return p.name == config.preset; });
  if (!known)
    return to_spec(config);
  const std::vector<std::string> usual = values_of(model_config(config.preset));
  const std::vector<std::string> now = values_of(config);
  Spec out(config.preset);
  for (std::size_t i = 0; i < now.size(); ++i) {
    if (now[i] != usual[i])
      out.set(rows[i].name, now[i]);
  }
  return out.given_text();
}

}  // namespace moe
