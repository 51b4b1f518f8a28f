#include "analysis/compare/lights.h"

#include <algorithm>
#include <cmath>

#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/table_builder.h"
#include "lib/core/text.h"

namespace moe {
namespace {

double at(const std::vector<double>& v, std::size_t i) {
  return i < v.size() ? v[i] : no_value;
}

// The figure of a light, in a table by layer, and the layer that decides it.
struct Found {
  const Column* column;
  std::int64_t layer;
  JudgedLight verdict;
  std::string table;
};

std::optional<Found> find(const Report& r, const Threshold& t) {
  for (const Table& table : r.tables) {
    const auto* layer = table.columns.empty() || table.columns[0].name != "layer"
                            ? nullptr
                            : std::get_if<std::vector<std::int64_t>>(&table.columns[0].cells);
    for (const Column& c : table.columns) {
      if (!layer || c.metric != t.id || !c.name.ends_with(t.column) ||
          !std::holds_alternative<std::vector<double>>(c.cells)) {
        continue;
      }
      if (const auto v = verdict(t, c))
        return Found{&c, (*layer)[v->row], *v, table.id};
    }
  }
  return {};
}

std::string turns_of(const Threshold& t) {
  return concat(t.red < t.yellow ? "below " : "from ", t.yellow, ", ", t.red);
}

struct Rows {
  std::vector<std::string> name, light, limit, source, id, per;
  std::string unit = "tokens";  // that the figures were measured on
  std::vector<std::int64_t> layer;
  Values::Rows worst;
  std::vector<double> low, high, needed;
  double tokens = 0;
  Light most = Light::green;

  void add(const Threshold& t, const Found& f) {
    const Column& c = *f.column;
    const std::size_t row = f.verdict.row;
    name.push_back(t.name);
    light.emplace_back(light_words[int(f.verdict.light)]);
    layer.push_back(f.layer);
    worst.add(std::get<std::vector<double>>(c.cells)[row],
              {at(c.chance, row), at(c.chance_spread, row)});
    low.push_back(at(c.low, row));
    high.push_back(at(c.high, row));
    needed.push_back(f.verdict.light == Light::grey ? f.verdict.needed : no_value);
    per.push_back(c.evidence.per);
    unit = c.evidence.unit;
    limit.push_back(turns_of(t));
    id.push_back(t.id);
    source.push_back(t.source);
    most = std::max(most, f.verdict.light);
    tokens = std::max(tokens, std::isnan(f.verdict.tokens) ? 0 : f.verdict.tokens);
  }
  bool any_grey() const {
    return std::ranges::find(light, light_words[int(Light::grey)]) != light.end();
  }
};

Table table(const Rows& rows, const std::string& section) {
  TableBuilder t("lights", "Balance at a glance", section);
  t.reading(
      "The worst layer of each figure against two thresholds, which --threshold NAME=YELLOW,RED "
      "sets. Grey: random routing on so few tokens often passes the first of them too, so nothing "
      "can be said.");
  t.key("figure", "", rows.name);
  t.column("light")
      .meaning("green also where random routing would be as bad; grey: too few tokens to judge")
      .values(rows.light)
      .light();
  t.column("worst")
      .meaning("of all layers; random routing on a trace of this size gives the chance value")
      .rows(rows.worst)
      .interval(rows.low, rows.high);
  t.key("layer", "the worst one", rows.layer);
  if (rows.any_grey()) {
    t.column(rows.unit + " needed")
        .meaning("for a light, about; of drops, in each step; ∞: random routing is as bad with any")
        .values(rows.needed)
        .digits(0);
  }
  t.key("yellow, red", "thresholds", rows.limit);
  t.key("id", "for --threshold", rows.id).key("whose thresholds", "", rows.source);
  return t.take();
}

// The names of all lights of one colour, each as `one` tells it, and how many there are.
struct Named {
  Finding list;
  std::size_t count = 0;
};
template <class One>
Named named(const QuotedTable& t, Light light, const One& one) {
  Named out;
  for (std::size_t i = 0; i < t.rows(); ++i) {
    if (t.words("light")[i] != light_words[int(light)])
      continue;
    extend(out.list, out.count ? ", " : "", one(i));
    ++out.count;
  }
  return out;
}

Finding needed_text(const QuotedTable& t, const Rows& rows, std::size_t i) {
  if (!std::isfinite(rows.needed[i]))
    return told(t.cell("figure", i));
  return told(t.cell("figure", i), " (needs about ", t.cell(rows.unit + " needed", i).figure(0),
              rows.per[i], ")");
}

Finding sentence(const Report& r, const Rows& rows) {
  const QuotedTable t(r, "lights");
  const Quote lights = t.basis("light");
  const Named red = named(t, Light::red, [&](std::size_t i) {
    return told(t.cell("figure", i), " of layer ", t.cell("layer", i));
  });
  const Named yellow =
      named(t, Light::yellow, [&](std::size_t i) { return told(t.cell("figure", i)); });
  const Named grey = named(t, Light::grey, [&](std::size_t i) { return needed_text(t, rows, i); });
  Finding out;
  if (red.count) {
    out = told(derived(concat(red.count, " of ", t.rows()), {lights}), " lights ",
               red.count == 1 ? "is" : "are", " red: ", red.list, ".");
  } else if (grey.count == t.rows()) {
    out = derived("All lights are grey.", {lights});
  } else {
    const char* rest = yellow.count ? "some are yellow." : grey.count ? "" : "all are green.";
    out = derived(concat("No light is red", *rest ? ": " : ".", rest), {lights});
  }
  if (grey.count) {
    extend(out, " The ", rounded(rows.tokens), " ", rows.unit,
           " of this trace are too few to judge ", grey.list,
           ": random routing of this size would often look as bad.");
  }
  return out;
}

Tile tile_of(const Threshold& t, const Found& f) {
  const Column& c = *f.column;
  const std::size_t row = f.verdict.row;
  Tile out{.name = t.name,
           .light = light_words[int(f.verdict.light)],
           .metric = t.id,
           .table = f.table,
           .layer = f.layer,
           .by_layer = std::get<std::vector<double>>(c.cells),
           .chance = c.chance,
           .low_is_bad = t.red < t.yellow,
           .turns = turns_of(t)};
  out.worst = {.name = c.name,
               .unit = c.unit,
               .meaning = c.meaning,
               .cells = std::vector<double>{out.by_layer[row]},
               .metric = c.metric,
               .chance = {at(c.chance, c.chance.size() == 1 ? 0 : row)},
               .digits = c.digits,
               .low = {at(c.low, row)},
               .high = {at(c.high, row)},
               .chance_spread = {at(c.chance_spread, c.chance_spread.size() == 1 ? 0 : row)}};
  return out;
}

Priority priority_of(Light light) {
  return light == Light::red      ? Priority::red
         : light == Light::yellow ? Priority::yellow
         : light == Light::grey   ? Priority::too_few
                                  : Priority::green;
}

// A finding on a figure that has a light is as good or bad as its light; the worst, of several.
void weigh(std::vector<Finding>& findings, const std::vector<Found>& lights) {
  for (Finding& f : findings) {
    std::optional<Light> worst;
    for (const Found& light : lights) {
      const bool about = std::ranges::any_of(
          f.cells, [&](const Quote& q) { return q.metric == light.column->metric; });
      if (about)
        worst = std::max(worst.value_or(Light::green), light.verdict.light);
    }
    if (worst && f.priority == Priority::told)
      f.priority = priority_of(*worst);
  }
}

}  // namespace

std::optional<Light> add_lights(Report& r, const std::vector<Threshold>& all) {
  Rows rows;
  std::vector<Found> lights;
  for (const Threshold& t : all) {
    if (const auto found = find(r, t)) {
      rows.add(t, *found);
      r.tiles.push_back(tile_of(t, *found));
      lights.push_back(*found);
    }
  }
  if (rows.name.empty())
    return {};
  weigh(r.findings, lights);
  r.tables.insert(r.tables.begin(), table(rows, r.tables.front().section));
  const Priority priority = rows.any_grey() ? Priority::too_few : Priority::overview;
  r.findings.insert(r.findings.begin(), told(priority, sentence(r, rows)));
  return rows.most;
}

}  // namespace moe
