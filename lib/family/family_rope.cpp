// Rotary embedding in config.json, read and written: rope_theta beside rope_scaling, which 4.x
// reads and 5.x folds into rope_parameters.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

std::string numbers(const std::vector<double>& all) {
  std::string out;
  for (const double v : all)
    out += concat(out.empty() ? "" : ";", v);
  return out;
}

double positive(const ConfigReader& s, const char* key, double fallback) {
  const double v = s.real(key, fallback);
  if (!(v > 0))
    s.refuse(concat(key, " is ", v, " and must be above 0"));
  return v;
}

std::string yarn(const ConfigReader& s, const ModelConfig& c) {
  s.at("factor");
  const double factor = positive(s, "factor", 1);
  double scale = s.real("attention_factor", -1);
  if (scale < 0) {
    scale = s.has("mscale") && s.has("mscale_all_dim") && s.real("mscale", 1) != 0 &&
                    s.real("mscale_all_dim", 1) != 0
                ? yarn_magnitude(factor, s.real("mscale", 1)) /
                      yarn_magnitude(factor, s.real("mscale_all_dim", 1))
                : yarn_magnitude(factor, 1);
  }
  return concat("yarn:factor=", factor,
                ",original=", s.whole("original_max_position_embeddings", c.context),
                ",beta_fast=", s.real("beta_fast", 32), ",beta_slow=", s.real("beta_slow", 1),
                ",truncate=", s.flag("truncate", true), ",scale=", scale);
}
// One factor for each pair of a head that is turned.
std::string factors(const ConfigReader& r, const ConfigReader& s, const char* key,
                    const ModelConfig& c) {
  const std::vector<double> all = s.reals(key);
  const int turned = r.has("qk_rope_head_dim") ? r.whole("qk_rope_head_dim") : c.rotary_dims();
  if (all.size() != std::size_t(turned / 2)) {
    s.refuse(
        concat(key, " holds ", all.size(), " numbers and a head turns in ", turned / 2, " pairs"));
  }
  for (const double v : all) {
    if (!(v > 0))
      s.refuse(concat(key, " holds ", v, " and must be a list of numbers above 0"));
  }
  return numbers(all);
}
std::string longrope(const ConfigReader& r, const ConfigReader& s, const ModelConfig& c) {
  const int original = s.has("original_max_position_embeddings")
                           ? s.whole("original_max_position_embeddings")
                           : r.whole("original_max_position_embeddings", c.context);
  const double factor = s.real("factor", double(c.context) / std::max(original, 1));
  const double usual =
      s.real("attention_factor",
             factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(double(original))));
  const std::string near = factors(r, s, "short_factor", c);
  const std::string far = factors(r, s, "long_factor", c);
  return concat("longrope:original=", original, ",short=", near, ",long=", far,
                ",short_scale=", s.real("short_mscale", usual),
                ",long_scale=", s.real("long_mscale", usual));
}

std::string llama3(const ConfigReader& s, const ModelConfig& c) {
  const double low = s.real("low_freq_factor", 1);
  const double high = s.real("high_freq_factor", 4);
  if (!(high > low)) {
    s.refuse(
        concat("high_freq_factor is ", high, " and must be above low_freq_factor, which is ", low));
  }
  return concat("llama3:factor=", positive(s, "factor", 8), ",low=", low, ",high=", high,
                ",original=", s.whole("original_max_position_embeddings", c.context));
}

// The rule `type`, from the keys in s.
void read_rule(const ConfigReader& r, const ConfigReader& s, const std::string& type,
               ModelConfig& c) {
  if (type == "default")
    return;
  if (type == "linear") {
    c.rope = concat("linear:factor=", positive(s, "factor", 1));
  } else if (type == "llama3") {
    c.rope = llama3(s, c);
  } else if (type == "yarn") {
    c.rope = yarn(s, c);
  } else if (type == "longrope" || type == "su") {
    c.rope = longrope(r, s, c);
  } else if (type == "dynamic" && s.has("alpha")) {  // Hunyuan: fixed, whatever the length
    c.rope_theta *= std::pow(s.real("alpha", 1), double(c.head_dim) / (c.head_dim - 2));
  } else {
    r.cannot_compute(concat(rope_place(r), " asks for the rope type '", type,
                            "' and this program does not have it"),
                     "it has " + join(rotary_rules()));
  }
}

void check_pairs(const ConfigReader& r, const ModelConfig& c, double share) {
  const int turned = share == 1 ? c.head_dim : c.rotary_dim;
  if (turned < 2 || turned > c.head_dim || turned % 2 != 0) {
    r.refuse(concat("head_dim is ", c.head_dim, " and partial_rotary_factor ", share, ": ", turned,
                    " numbers of a head would be turned, and they are turned in pairs"));
  }
}

}  // namespace

const char* rope_place(const ConfigReader& r) {
  return r.has("rope_scaling") && !r.at("rope_scaling").empty() ? "rope_scaling"
                                                                : "rope_parameters";
}

namespace {

// The share is of the pairs of a whole head.
void read_proportional(const ConfigReader& s, double share, ModelConfig& c) {
  if (s.real("factor", 1) != 1) {
    s.cannot_compute(
        concat("factor is ", s.real("factor", 1),
               " beside the rope type 'proportional', which this program takes to be 1"));
  }
  c.rotary_dim = 0;
  c.rope = concat("proportional:share=", share);
}

// `s`: where the rule stands.
void read_rope_at(const ConfigReader& r, const ConfigReader& s, ModelConfig& c) {
  // where both say it, an older tool left its own default outside, and the class reads the inner
  // one
  c.rope_theta = s.real("rope_theta", r.real("rope_theta", 10000));
  const double share = s.real("partial_rotary_factor", r.real("partial_rotary_factor", 1));
  if (!(c.rope_theta > 0))
    r.refuse(concat("rope_theta is ", c.rope_theta, " and must be above 0"));
  c.rotary_dim = share == 1 ? 0 : int(c.head_dim * share);
  c.rope = "default";
  const std::string type = s.has("rope_type") ? s.text("rope_type") : s.text("type", "default");
  if (type == "proportional")
    return read_proportional(s, share, c);
  if (!r.has("qk_rope_head_dim"))
    check_pairs(r, c, share);
  read_rule(r, s, type, c);
}

bool is_by_kind(const ConfigReader& r) {
  const char* place = rope_place(r);
  if (!r.has(place) || !r.at(place).is_object())
    return false;
  const Json& rules = r.at(place);
  return !rules.empty() &&
         std::ranges::all_of(rules, [](const Json& rule) { return rule.is_object(); });
}

}  // namespace

void read_rope(const ConfigReader& r, ModelConfig& c) {
  if (c.rope == rope_none)
    return;
  const char* place = rope_place(r);
  const Json empty = Json::object();
  if (is_by_kind(r))
    return;  // asked for by kind
  read_rope_at(r, r.has(place) ? r.in(place) : ConfigReader(empty, r.file()), c);
}

void read_rope(const ConfigReader& r, ModelConfig& c, const char* kind) {
  if (!is_by_kind(r))
    return read_rope(r, c);
  read_rope_at(r, r.in(rope_place(r)).in(kind), c);
}

namespace {

std::vector<double> numbers_in(const std::string& list) {
  std::vector<double> out;
  for (const std::string& word : split(list, ';'))
    out.push_back(std::stod(word));
  return out;
}

// The weight w of a scale of attention g(w)^2 / sqrt(d), with which latent attention makes up for
// the stretched context.
double weight_of_scale(const ModelConfig& c, double factor) {
  return (std::sqrt(c.attention_scale * std::sqrt(double(c.head_dim))) - 1) /
         (0.1 * std::log(factor));
}

void write_yarn(const ModelConfig& c, Spec& s, Json& r) {
  const double factor = r["factor"];
  r["beta_fast"] = s.get("beta_fast", 32.0);
  r["beta_slow"] = s.get("beta_slow", 1.0);
  r["truncate"] = s.get("truncate", true);
  r["attention_factor"] = s.get("scale", yarn_magnitude(factor, 1));
  if (c.kv_rank > 0 && c.attention_scale > 0 && factor > 1)
    r["mscale_all_dim"] = weight_of_scale(c, factor);
}

}  // namespace

namespace {

Json written_rule(const ModelConfig& c, Spec& s) {
  const std::string type = s.name();
  Json r{{"rope_type", type}};
  if (type == "linear" || type == "llama3" || type == "yarn")
    r["factor"] = s.get("factor", type == "llama3" ? 8.0 : 1.0);
  if (type == "llama3") {
    r["low_freq_factor"] = s.get("low", 1.0);
    r["high_freq_factor"] = s.get("high", 4.0);
  }
  if (type == "proportional") {
    r["partial_rotary_factor"] = s.get("share", 1.0);
    return r;
  }
  if (type != "linear")
    r["original_max_position_embeddings"] = s.get("original", type == "llama3" ? 8192 : 4096);
  if (type == "yarn")
    write_yarn(c, s, r);
  if (type == "longrope") {
    r["short_factor"] = numbers_in(s.get("short", ""));
    r["long_factor"] = numbers_in(s.get("long", ""));
    r["short_mscale"] = s.get("short_scale", 1.0);
    r["long_mscale"] = s.get("long_scale", 1.0);
  }
  return r;
}

}  // namespace

void write_rope(const ModelConfig& c, Json& j) {
  Spec s(c.rope);
  // of the latter no class that is written has a key
  if (s.name() != "default" && s.name() != "fourier")
    j["rope_scaling"] = written_rule(c, s);
}

double turned_share(const ModelConfig& c) {
  const double share = double(c.rotary_dims()) / c.head_dim;
  return int(c.head_dim * share) == c.rotary_dims() ? share : std::nextafter(share, 1.0);
}

Json rope_parameters(const ModelConfig& c) {
  Spec s(c.rope);
  Json out = s.name() == "default" ? Json{{"rope_type", "default"}} : written_rule(c, s);
  out["rope_theta"] = c.rope_theta;
  if (c.rotary_dims() != c.head_dim)
    out["partial_rotary_factor"] = turned_share(c);
  return out;
}

namespace {

// How many of `pairs` an axis has where three take turns until each has its own.
int taken_in_turn(int axis, int wanted, int pairs) {
  const int places = (pairs - axis + 2) / 3;
  return std::min(wanted, places);
}

}  // namespace

void read_axes(const ConfigReader& r, ModelConfig& c, PairRule rule,
               const std::array<int, 3>& usual) {
  const char* place = rope_place(r);
  RopeAxes axes{.rule = rule, .sections = usual};
  if (r.has(place) && r.in(place).has("mrope_section")) {
    const ConfigReader s = r.in(place);
    const std::vector<int> given = s.wholes("mrope_section");
    if (given.size() != axes.sections.size())
      s.refuse(concat("mrope_section has ", given.size(),
                      " numbers of pairs, and there are three axes"));
    std::ranges::copy(given, axes.sections.begin());
  }
  const int pairs = c.rotary_dims() / 2;
  auto& [first, second, third] = axes.sections;
  if (rule == PairRule::interleaved) {  // time has what height and width leave
    second = taken_in_turn(1, second, pairs);
    third = taken_in_turn(2, third, pairs);
    first = pairs - second - third;
  }
  if (axes.pairs() != pairs || (rule == PairRule::ernie && first != second)) {
    r.cannot_compute(concat("mrope_section of ", place, " is ", first, ", ", second, ", ", third,
                            " and a head (head_dim ", c.head_dim, ") turns in ", pairs, " pairs"),
                     concat("numbers whose sum is ", pairs,
                            rule == PairRule::ernie ? ", the first two alike" : ""));
    return;
  }
  c.rope_axes = axes_text(axes);
}

void write_axes(const ModelConfig& c, Json& text) {
  Json rule = rope_parameters(c);
  if (const auto axes = rope_axes(c.rope_axes)) {
    rule["mrope_section"] = axes->sections;
    if (axes->rule == PairRule::interleaved)
      rule["mrope_interleaved"] = true;
  }
  text["rope_parameters"] = rule;
  text.erase("rope_scaling");
  text.erase("rope_theta");
}

}  // namespace moe
