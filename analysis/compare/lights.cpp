#include "analysis/compare/lights.h"

#include <cmath>
#include <limits>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();
constexpr const char* words[] = {"green", "yellow", "red"};

double at(const std::vector<double>& v, std::size_t i) {
  return i < v.size() ? v[i] : none;
}

struct Found {
  std::int64_t layer = 0;
  double value = none, chance = none, low = none, high = none, spread = none;
};

bool worse(const Threshold& t, double a, double b) {
  return t.red < t.yellow ? a < b : a > b;
}

// The worst layer of the figure, from a table by layer.
std::optional<Found> worst(const Report& r, const Threshold& t) {
  for (const Table& table : r.tables) {
    const auto* layer = table.columns.empty() || table.columns[0].name != "layer"
                            ? nullptr
                            : std::get_if<std::vector<std::int64_t>>(&table.columns[0].cells);
    for (const Column& c : table.columns) {
      const auto* cells = std::get_if<std::vector<double>>(&c.cells);
      if (!layer || !cells || c.metric != t.id || !c.name.ends_with(t.column))
        continue;
      std::optional<Found> out;
      for (std::size_t i = 0; i < cells->size(); ++i) {
        if (!std::isnan((*cells)[i]) && (!out || worse(t, (*cells)[i], out->value))) {
          out = {(*layer)[i],  (*cells)[i],   at(c.chance, i),
                 at(c.low, i), at(c.high, i), at(c.chance_spread, i)};
        }
      }
      if (out)
        return out;
    }
  }
  return {};
}

Light light_of(const Threshold& t, const Found& f) {
  const bool low_is_bad = t.red < t.yellow;
  const double kind = low_is_bad ? f.high : f.low;  // the best that the text allows
  constexpr double slack = 2;  // the worst of several layers lies above what one gives by chance
  const double by_chance = low_is_bad ? 1 - slack * (1 - f.chance) : slack * f.chance;
  if (!worse(t, f.value, by_chance) && !std::isnan(f.chance))
    return Light::green;
  if (!std::isnan(kind) && !std::isnan(f.chance) && !worse(t, kind, f.chance))
    return Light::green;
  const auto from = [&](double limit) {
    return low_is_bad ? f.value < limit : f.value >= limit;
  };
  return from(t.red) ? Light::red : from(t.yellow) ? Light::yellow : Light::green;
}

}  // namespace

std::vector<Threshold> thresholds(const std::vector<std::string>& settings) {
  std::vector<Threshold> out = {
#define LIGHT(id, name, column, yellow, red, source) {#id, name, column, yellow, red, source},
#include "analysis/compare/lights.def"
#undef LIGHT
  };
  std::vector<std::string> names;
  for (const Threshold& t : out)
    names.push_back(t.id);
  for (const std::string& s : settings) {
    const std::size_t equals = s.find('=');
    const std::vector<std::string> two =
        split(s.substr(equals == s.npos ? s.size() : equals + 1), ',');
    if (two.size() != 2) {
      throw Error(Exit::usage, concat("the threshold '", s, "' is not NAME=YELLOW,RED"))
          .hint("--threshold load_cv=0.5,1.0");
    }
    const auto found = std::find_if(
        out.begin(), out.end(), [&](const Threshold& t) { return t.id == s.substr(0, equals); });
    if (found == out.end()) {
      const std::string near = nearest(s.substr(0, equals), names);
      throw Error(Exit::usage, concat("there is no light for '", s.substr(0, equals), "'",
                                      near.empty() ? "" : concat("; did you mean '", near, "'?")))
          .hint("lights: " + join(names));
    }
    Spec numbers(concat(found->id, ":yellow=", two[0], ",red=", two[1]));
    const bool low_is_bad = found->red < found->yellow;
    const double yellow = numbers.get("yellow", 0.0);
    const double red = numbers.get("red", 0.0);
    if (low_is_bad ? red > yellow : red < yellow) {
      throw Error(Exit::usage,
                  concat("red at ", two[1], " comes before yellow at ", two[0], " in '", s, "'"))
          .hint(low_is_bad ? "low values are the bad ones: yellow is the larger number"
                           : "yellow first, then red");
    }
    found->yellow = yellow;
    found->red = red;
    found->source = "set by --threshold";
  }
  return out;
}

std::optional<Light> add_lights(Report& r, const std::vector<Threshold>& all) {
  std::optional<Light> most;
  std::vector<std::string> name, light, limit, source, id, red;
  std::vector<std::int64_t> layer;
  std::vector<double> value;
  Column figure{
      "worst", "", "of all layers; random routing on a trace of this size gives the chance value",
      {},      "", {},
      3};
  for (const Threshold& t : all) {
    const auto f = worst(r, t);
    if (!f)
      continue;
    const Light l = light_of(t, *f);
    if (!most || l > *most)
      most = l;
    if (l == Light::red)
      red.push_back(concat(t.name, " of layer ", f->layer));
    name.push_back(t.name);
    light.emplace_back(words[int(l)]);
    layer.push_back(f->layer);
    value.push_back(f->value);
    id.push_back(t.id);
    source.push_back(t.source);
    figure.chance.push_back(f->chance);
    figure.low.push_back(f->low);
    figure.high.push_back(f->high);
    figure.chance_spread.push_back(f->spread);
    limit.push_back(concat(t.red < t.yellow ? "below " : "from ", t.yellow, ", ", t.red));
  }
  if (!most)
    return {};
  figure.cells = value;
  Column shown{"light", "", "green also where random routing would be as bad", light, "", {}, 3};
  shown.light = true;
  const auto words_of = [](const char* head, const char* meaning, std::vector<std::string> cells) {
    return Column{head, "", meaning, std::move(cells), "", {}, 3};
  };
  r.tables.insert(r.tables.begin(), {"lights",
                                     "Balance at a glance",
                                     "The worst layer of each figure against two thresholds, which "
                                     "--threshold NAME=YELLOW,RED sets.",
                                     Chart::none,
                                     {words_of("figure", "", name),
                                      shown,
                                      figure,
                                      {"layer", "", "the worst one", layer, "", {}, 3},
                                      words_of("yellow, red", "thresholds", limit),
                                      words_of("id", "for --threshold", id),
                                      words_of("whose thresholds", "", source)},
                                     r.tables.front().section,
                                     false,
                                     {}});
  r.findings.insert(r.findings.begin(),
                    red.empty()
                        ? concat("No light is red: ",
                                 *most == Light::yellow ? "some are yellow." : "all are green.")
                        : concat(red.size(), " of ", light.size(), " lights ",
                                 red.size() == 1 ? "is" : "are", " red: ", join(red), "."));
  return most;
}

}  // namespace moe
