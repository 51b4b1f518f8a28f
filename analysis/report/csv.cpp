// Every table whole, one after another, in one long form that any reader takes in one call:
//   table,row,column,value,unit,chance,metric,low,high,chance_spread,inside_chance
// One line a cell; row counts from 0 inside its table; inside_chance is 1 where random routing
// would do as well, else empty. Numbers read back to the same double; no value is an empty field,
// infinity is inf. The facts of the report come first as table "report", one column a fact. With
// pandas:
//   d = pandas.read_csv("x.csv"); d[d.table == "load"].pivot(index="row", columns="column",
//   values="value")
#include <cmath>
#include <limits>

#include "analysis/report/cells.h"
#include "analysis/report/render.h"
#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using namespace drawing;

std::string field(std::string_view text) {  // RFC 4180
  std::string safe = clean(text, true);
  if (safe.find_first_of(",\"\r\n") == safe.npos)
    return safe;
  std::string out = "\"";
  for (const char c : safe)
    out.append(c == '"' ? 2 : 1, c);
  return out + "\"";
}

constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

std::string exact(double v) {
  return std::isnan(v) ? "" : number_text(v);
}

std::string value_field(const Column& c, std::size_t row) {
  if (const auto* s = std::get_if<std::vector<std::string>>(&c.cells))
    return field((*s)[row]);
  if (const auto* i = std::get_if<std::vector<std::int64_t>>(&c.cells))
    return concat((*i)[row]);
  return exact(value(c, row));
}

}  // namespace

std::string render_csv(const Report& report, const RenderOptions&) {
  std::string out =
      "table,row,column,value,unit,chance,metric,low,high,chance_spread,inside_chance\n";
  for (const auto& [name, text] : report.facts)
    out += concat("report,0,", field(name), ",", field(text), ",,,,,,,\n");
  for (const Table& t : report.tables) {
    for (std::size_t r = 0; r < rows(t); ++r) {
      for (const Column& c : t.columns) {
        if (r < rows(c)) {
          out += concat(field(t.id), ",", r, ",", field(c.name), ",", value_field(c, r), ",",
                        field(c.unit), ",", exact(chance(c, r)), ",", field(c.metric), ",",
                        exact(r < c.low.size() ? c.low[r] : nothing), ",",
                        exact(r < c.high.size() ? c.high[r] : nothing), ",",
                        exact(chance_spread(c, r)), ",", inside_chance(c, r) ? "1" : "", "\n");
        }
      }
    }
  }
  return out;
}

}  // namespace moe
