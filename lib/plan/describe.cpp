// From model_type to the reader of its sizes, and our own configurations.
#include <nlohmann/json.hpp>

#include "lib/checkpoint/folder.h"
#include "lib/plan/keys.h"

namespace moe::plan {
namespace {

struct Type {
  std::string_view name;
  Description (*read)(const Keys&, const std::string&);
};
constexpr Type types[] = {
#define TYPE(name, read) {name, read},
#include "lib/plan/types.def"
#undef TYPE
};

const Type* type_named(const std::string& name) {
  for (const Type& t : types) {
    if (t.name == name)
      return &t;
  }
  return nullptr;
}

// Other names of the same layout.
std::string usual_name(const std::string& type) {
  static constexpr std::pair<std::string_view, std::string_view> same[] = {
      {"llama4", "llama4_text"},
      {"interns1_pro_text", "interns1_pro"},
      {"minimax_text_01", "minimax"},
      {"nllb_moe", "nllb-moe"},
      {"switch", "switch_transformers"}};
  for (const auto& [from, to] : same) {
    if (type == from)
      return std::string(to);
  }
  return type;
}

Feed own_feed(const ModelConfig& c, int l, bool first_moe) {
  Feed f;
  f.matrices = is_gated(c.moe.activation) ? 3 : 2;
  if (!c.is_moe(l)) {
    f.width = c.twin_width();
    return f;
  }
  LayerConfig m = c.moe;
  m.gate_residual = m.gate_residual && !first_moe;  // the first has no logits before it
  const LayerCost cost = cost_of(m);
  const auto router = make_router(m.router, m.experts);
  f.experts = m.experts;
  f.k = router->slots() > 0 ? m.experts : router->choices();
  f.width = m.width;
  f.bias = m.expert_bias;
  f.shared_width = m.shared_width;
  f.shared_gate = m.shared_gate;
  f.router = std::pair(Count(cost.router), Count(cost.router_flops / 2));
  f.correction_bias = !router->correction_bias().empty();
  if (m.widths.empty() && m.types.empty())
    return f;
  for (int e = 0; e < m.experts; ++e) {
    f.widths.push_back(m.type_of(e) == ExpertKind::ffn ? m.width_of(e) : 0);
    if (m.type_of(e) == ExpertKind::constant)
      f.light += 3 * m.hidden;
  }
  return f;
}

}  // namespace

std::vector<std::string> known_types() {
  std::vector<std::string> out;
  for (const Type& t : types)
    out.emplace_back(t.name);
  out.emplace_back("moe");
  return out;
}

const Feed* Description::moe() const {
  for (const Layer& l : layers) {
    if (l.feed && l.feed->experts > 0)
      return &*l.feed;
  }
  return nullptr;
}
Count Description::moe_layers() const {
  return std::ranges::count_if(layers,
                               [](const Layer& l) { return l.feed && l.feed->experts > 0; });
}
bool Description::encoder_decoder() const {
  return std::ranges::any_of(layers, [](const Layer& l) { return l.encoder; }) &&
         std::ranges::any_of(layers, [](const Layer& l) { return !l.encoder; });
}

Description describe(const ModelConfig& config, const std::string& name) {
  const ModelConfig c = resolved(config);
  Description d;
  d.name = name;
  d.family = "moe";
  d.hidden = c.hidden;
  d.vocabulary = c.vocabulary;
  d.context = c.context;
  d.tied = c.tied;
  Mixer m;
  m.heads = c.heads;
  m.kv_heads = c.kv_heads;
  m.head_dim = c.head_dim;
  m.qk_norm = c.qk_norm;
  m.window = c.window;
  bool first = true;
  for (int l = 0; l < c.layers; ++l) {
    d.layers.push_back({.mixers = {m}, .feed = own_feed(c, l, first)});
    first = first && !c.is_moe(l);
  }
  return d;
}

Description describe(const Json& j, const std::string& file, const std::string& name) {
  const Keys r{j, file};
  if (!j.is_object())
    r.refuse("this is not an object");
  if (r.has("moe_training")) {
    const std::string type = r.text("model_type", "");
    Description d = describe(model_config(r.below("moe_training").text("spec", "")), name);
    if (type != "moe")
      d.family = type;
    for (Layer& l : d.layers)  // the class has one always
    {
      if (type == "glm4_moe" && l.feed && l.feed->experts > 0)
        l.feed->correction_bias = true;
    }
    return d;
  }
  for (const char* inner : {"text_config", "llm_config"}) {
    if (!r.has(inner))
      continue;
    Json below = r.below(inner).j;
    if (!type_named(usual_name(below.value("model_type", ""))))
      below["model_type"] = r.text("model_type", "");
    return describe(below, concat(file, ", ", inner), name);
  }
  const std::string given = r.text("model_type", "");
  if (given.empty())
    r.refuse("model_type is missing", "a config.json of a published model says what it is");
  const Type* type = type_named(usual_name(given));
  if (!type) {
    const std::string near = nearest(given, known_types());
    r.refuse(
        concat("model_type '", given, "' is none whose sizes are known"),
        concat(near.empty() ? "" : concat("'", near, "'; "), "there is ", join(known_types())));
  }
  Description d = type->read(r, std::string(type->name));
  d.name = name;
  d.family = given;
  return d;
}

Description describe_path(const std::string& path) {
  std::filesystem::path file = path;
  if (std::filesystem::is_directory(file)) {
    if (!std::filesystem::exists(file / "config.json"))
      file = find_checkpoint(file).path;
    file /= "config.json";
  }
  return describe(read_json(file), file.string(), path);
}

}  // namespace moe::plan
