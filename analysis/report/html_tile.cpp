// A figure of the first screen: its name, its worst layer with what random routing gives, its
// light, and all layers as a line.
#include <cmath>

#include <fmt/format.h>

#include "analysis/report/page.h"
#include "analysis/report/svg.h"
#include "analysis/report/utf8.h"

namespace moe::drawing {

std::string tile(const Tile& t, const std::string& target) {
  const std::string by = chance_beside(t.worst, 0, true);
  const std::string range = interval_cell(t.worst, 0);
  const std::string turns =
      t.turns.empty() ? "" : concat(" title=\"yellow, red: ", html(t.turns), "\"");
  std::string out = concat(
      "<a class=tile", target.empty() ? "" : concat(" href=\"#", target, "\""),
      "><span class=what>", html(t.name), "</span> <span class=\"lamp ", html(t.light), "\"", turns,
      ">", html(t.light), "</span><span class=value><b>", html(cell(t.worst, 0)), "</b> ",
      by.empty() ? "" : html(by), "</span>", spark_chart(t), "<span class=beside>worst: layer ",
      t.layer, range.empty() ? "" : concat(", 95 % ", html(range)), "</span></a>");
  return out;
}

}  // namespace moe::drawing
