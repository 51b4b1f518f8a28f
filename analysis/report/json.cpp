// One strict JSON object: everything in the report. A number that is none is null, infinity the
// string "inf" or "-inf" (bare NaN and Infinity are not JSON); token pieces are hexadecimal, since
// a token may be part of a character. A line a table, for diff.
#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "analysis/report/cells.h"
#include "analysis/report/render.h"
#include "analysis/report/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::ordered_json;
using namespace drawing;

Json number_json(double v) {
  if (std::isnan(v))
    return nullptr;
  if (std::isinf(v))
    return v > 0 ? "inf" : "-inf";
  return v;
}

Json texts(const std::vector<std::string>& list) {
  Json out = Json::array();
  for (const std::string& s : list)
    out.push_back(clean(s, true));
  return out;
}

Json texts(const std::vector<Finding>& list) {
  Json out = Json::array();
  for (const Finding& f : list)
    out.push_back(clean(f.text, true));
  return out;
}

// Which cells the sentence speaks of: as it stands, by its chance value, or as what a number of it
// was computed from. The column's definition tells columns of one name apart.
Json quote_json(const Quote& q) {
  static constexpr const char* uses[] = {"value", "chance", "basis"};
  return {{"table", clean(q.table)},
          {"column", clean(q.column)},
          {"metric", clean(q.metric)},
          {"row", q.row},
          {"rows", q.rows},
          {"use", uses[int(q.use)]}};
}

// A list for each of the findings, in their order.
Json quotes(const std::vector<Finding>& findings) {
  Json out = Json::array();
  for (const Finding& f : findings) {
    Json cells = Json::array();
    for (const Quote& q : f.cells)
      cells.push_back(quote_json(q));
    out.push_back(std::move(cells));
  }
  return out;
}

Json cell_json(const Column& c, std::size_t r) {
  if (const auto* s = std::get_if<std::vector<std::string>>(&c.cells))
    return clean((*s)[r], true);
  if (const auto* i = std::get_if<std::vector<std::int64_t>>(&c.cells))
    return (*i)[r];
  return number_json(value(c, r));
}

Json column_json(const Column& c) {
  Json values = Json::array();
  Json chances = Json::array();
  Json spreads = Json::array();
  Json inside = Json::array();
  for (std::size_t r = 0; r < rows(c); ++r) {
    values.push_back(cell_json(c, r));
    if (c.chance.empty())
      continue;
    chances.push_back(number_json(chance(c, r)));
    inside.push_back(inside_chance(c, r));
    if (!c.chance_spread.empty())
      spreads.push_back(number_json(chance_spread(c, r)));
  }
  Json out = {{"name", clean(c.name)},
              {"unit", clean(c.unit)},
              {"meaning", clean(c.meaning)},
              {"metric", clean(c.metric)}};
  out["values"] = std::move(values);
  out["chance"] = c.chance.empty() ? Json(nullptr) : std::move(chances);
  for (const auto& [name, bound] : {std::pair("low", &c.low), std::pair("high", &c.high)}) {
    if (bound->empty())
      continue;
    for (const double v : *bound)
      out[name].push_back(number_json(v));
  }
  if (!spreads.empty())
    out["chance_spread"] = std::move(spreads);
  if (!inside.empty())
    out["inside_chance"] = std::move(inside);
  return out;
}

Json table_json(const Table& t) {
  static constexpr const char* charts[] = {"none", "bars", "lines", "heatmap", "flow"};
  Json columns = Json::array();
  for (const Column& c : t.columns)
    columns.push_back(column_json(c));
  Json out = {{"id", clean(t.id)},
              {"title", clean(t.title)},
              {"section", clean(t.section)},
              {"reading", clean(t.reading)},
              {"chart", charts[int(t.chart)]},
              {"detail", t.detail},
              {"rows", rows(t)},
              {"warnings", texts(t.warnings)}};
  out["columns"] = std::move(columns);
  return out;
}

Json sample_json(const TokenSample& s) {
  Json pieces = Json::array();
  for (const std::string& p : s.piece) {
    std::string hex;
    for (const char c : p) {
      for (const int half : {static_cast<unsigned char>(c) >> 4, c & 15})
        hex += "0123456789abcdef"[half];
    }
    pieces.push_back(hex);
  }
  Json out = {{"domain", clean(s.domain)}, {"piece_hex", pieces}, {"expert", s.expert}};
  for (const SamplePicture& p : s.pictures) {
    out["pictures"].push_back({{"first", p.first},
                               {"rows", p.rows},
                               {"columns", p.columns},
                               {"modality", clean(p.modality)}});
  }
  return out;
}

// One object at a time: a large table takes many times its text.
template <class Item>
void append_lines(std::string& out, const std::vector<Item>& items, Json (*json)(const Item&)) {
  out += "[";
  for (std::size_t i = 0; i < items.size(); ++i) {
    out += i ? ",\n  " : "\n  ";
    out += json(items[i]).dump();
  }
  out += items.empty() ? "]" : "\n ]";
}

// A key for each column of a table: its name, with the id of its definition, and then a number,
// where several columns have one name.
std::vector<std::string> keys_of(const Table& t) {
  std::vector<std::string> out;
  for (const Column& c : t.columns) {
    const auto same = [&](const Column& o) {
      return o.name == c.name;
    };
    const bool one = std::ranges::count_if(t.columns, same) == 1;
    const std::string key = clean(one || c.metric.empty() ? c.name : concat(c.name, " ", c.metric));
    std::string unique = key;
    for (int n = 2; std::ranges::find(out, unique) != out.end(); ++n)
      unique = concat(key, " ", n);
    out.push_back(unique);
  }
  return out;
}

}  // namespace

std::string render_json(const Report& report, const RenderOptions&) {
  Json facts = Json::array();
  for (const auto& [name, text] : report.facts)
    facts.push_back({{"name", clean(name)}, {"value", clean(text, true)}});
  std::string out = "{\"schema\": \"moe-report/1\",\n";
  out += concat(" \"title\": ", Json(clean(report.title)).dump(), ",\n \"facts\": ", facts.dump(),
                ",\n");
  out += concat(" \"findings\": ", texts(report.findings).dump(),
                ",\n \"finding_cells\": ", quotes(report.findings).dump(),
                ",\n \"warnings\": ", texts(report.warnings).dump(), ",\n");
  out += " \"tables\": ";
  append_lines(out, report.tables, table_json);
  out += concat(",\n \"layers\": ", Json(report.layers).dump(), ",\n \"samples\": ");
  append_lines(out, report.samples, sample_json);
  return out += "\n}\n";
}

// {"table":"load","layer":0,"cv":0.1,...}: what pandas.read_json(lines=True) and jq -c take.
std::string render_jsonl(const Report& report, const RenderOptions&) {
  std::string out;
  for (const Table& t : report.tables) {
    const std::vector<std::string> keys = keys_of(t);
    for (std::size_t r = 0; r < rows(t); ++r) {
      Json row = {{"table", clean(t.id)}};
      for (std::size_t c = 0; c < t.columns.size(); ++c) {
        if (r < rows(t.columns[c]))
          row[keys[c]] = cell_json(t.columns[c], r);
      }
      out += row.dump() + "\n";
    }
  }
  return out;
}

}  // namespace moe
