#include "analysis/compare/lights.h"

#include <cmath>
#include <limits>

#include "analysis/metric/finding.h"
#include "analysis/metric/table_builder.h"
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
  const double by_chance = low_is_bad ? 1 - chance_slack * (1 - f.chance) : chance_slack * f.chance;
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

namespace {

struct Rows {
  std::vector<std::string> name, light, limit, source, id;
  std::vector<std::int64_t> layer;
  Values::Rows worst;
  std::vector<double> low, high;

  void add(const Threshold& t, const Found& f, Light l) {
    name.push_back(t.name);
    light.emplace_back(words[int(l)]);
    layer.push_back(f.layer);
    worst.add(f.value, {f.chance, f.spread});
    low.push_back(f.low);
    high.push_back(f.high);
    limit.push_back(concat(t.red < t.yellow ? "below " : "from ", t.yellow, ", ", t.red));
    id.push_back(t.id);
    source.push_back(t.source);
  }
};

Table table(const Rows& rows, const std::string& section) {
  TableBuilder t("lights", "Balance at a glance", section);
  t.reading(
      "The worst layer of each figure against two thresholds, which --threshold NAME=YELLOW,RED "
      "sets.");
  t.key("figure", "", rows.name);
  t.column("light")
      .meaning("green also where random routing would be as bad")
      .values(rows.light)
      .light();
  t.column("worst")
      .meaning("of all layers; random routing on a trace of this size gives the chance value")
      .rows(rows.worst)
      .interval(rows.low, rows.high);
  t.key("layer", "the worst one", rows.layer);
  t.key("yellow, red", "thresholds", rows.limit);
  t.key("id", "for --threshold", rows.id).key("whose thresholds", "", rows.source);
  return t.take();
}

Finding sentence(const Report& r, Light worst) {
  const QuotedTable t(r, "lights");
  const Quote lights = t.basis("light");
  if (worst != Light::red) {
    return told("No light is red: ",
                derived(worst == Light::yellow ? "some are yellow." : "all are green.", {lights}));
  }
  Finding which;
  std::size_t red = 0;
  for (std::size_t i = 0; i < t.rows(); ++i) {
    if (t.words("light")[i] != words[int(Light::red)])
      continue;
    extend(which, red ? ", " : "", t.cell("figure", i), " of layer ", t.cell("layer", i));
    ++red;
  }
  return told(derived(concat(red, " of ", t.rows()), {lights}), " lights ", red == 1 ? "is" : "are",
              " red: ", which, ".");
}

}  // namespace

std::optional<Light> add_lights(Report& r, const std::vector<Threshold>& all) {
  std::optional<Light> most;
  Rows rows;
  for (const Threshold& t : all) {
    const auto f = worst(r, t);
    if (!f)
      continue;
    const Light l = light_of(t, *f);
    if (!most || l > *most)
      most = l;
    rows.add(t, *f, l);
  }
  if (!most)
    return {};
  r.tables.insert(r.tables.begin(), table(rows, r.tables.front().section));
  r.findings.insert(r.findings.begin(), sentence(r, *most));
  return most;
}

}  // namespace moe
