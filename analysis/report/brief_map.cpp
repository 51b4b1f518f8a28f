#include "analysis/report/brief_map.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "analysis/report/colour.h"
#include "analysis/report/utf8.h"

namespace moe::drawing {
namespace {

constexpr std::size_t most_rows = 16;
constexpr std::size_t most_columns = 64;

// Of a ratio to chance: none, under a third, under two thirds, about even, up to three times, more.
struct Step {
  double below;  // the ratio
  const char *block, *letter;
};
constexpr std::array<Step, 5> steps{{{1.0 / 3, "·", "."},
                                     {2.0 / 3, "░", ":"},
                                     {3.0 / 2, "▒", "-"},
                                     {3, "▓", "+"},
                                     {std::numeric_limits<double>::infinity(), "█", "#"}}};
constexpr std::array<Step, 1> nothing{{{0, "×", "x"}}};
constexpr double coloured_octaves = 2;  // a quarter to four times

struct Cell {
  double ratio = std::numeric_limits<double>::quiet_NaN();  // to chance; NaN = there is none
  bool idle = false;  // it, or one of those it stands for, takes nothing
};
struct Row {
  std::string name;
  std::vector<Cell> cells;
};

std::string glyph(const Terminal& t, const Cell& c, int width) {
  std::string one = " ";
  if (c.idle) {
    one = t.ascii ? nothing[0].letter : nothing[0].block;
  } else if (!std::isnan(c.ratio)) {
    const auto at = std::ranges::find_if(steps, [&](const Step& s) { return c.ratio <= s.below; });
    one = t.ascii ? at->letter : at->block;
  }
  std::string out;
  for (int i = 0; i < width; ++i)
    out += one;
  if (!t.colour || std::isnan(c.ratio))
    return out;
  const double octaves = c.ratio > 0 ? std::log2(c.ratio) : -coloured_octaves;
  const double at = std::clamp(0.5 + octaves / (2 * coloured_octaves), 0.0, 1.0);
  return t.paint(concat("38;5;", xterm(diverging(at))).c_str(), out);
}

Cell cell_of(const Grid& g, std::size_t row, std::size_t col) {
  const double v = g.at(row, col);
  return {v / g.chance[row * g.col.size() + col], v == 0};
}

// A row's cells that have a value, the largest ratio first.
std::vector<Cell> sorted_row(const Grid& g, std::size_t row) {
  std::vector<Cell> out;
  for (std::size_t c = 0; c < g.col.size(); ++c) {
    if (const Cell one = cell_of(g, row, c); !std::isnan(one.ratio))
      out.push_back(one);
  }
  std::ranges::sort(out, [](const Cell& a, const Cell& b) { return a.ratio > b.ratio; });
  return out;
}

// Rows first..last together, in `width` cells: means of sorted neighbours.
Row together(const Grid& g, std::size_t first, std::size_t last, std::size_t width) {
  Row out{g.row[first] + (last - first > 1 ? concat("-", g.row[last - 1]) : ""),
          std::vector<Cell>(width, {0, false})};
  std::vector<double> weight(width, 0);
  for (std::size_t r = first; r < last; ++r) {
    const std::vector<Cell> cells = sorted_row(g, r);
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::size_t at = i * width / cells.size();
      out.cells[at].ratio += cells[i].ratio;
      out.cells[at].idle |= cells[i].idle;
      weight[at] += 1;
    }
  }
  for (std::size_t i = 0; i < width; ++i)
    out.cells[i].ratio /= weight[i];  // NaN where there is none
  return out;
}

struct Drawing {
  std::vector<Row> rows;
  std::size_t layers = 1, experts = 1;  // that a row, a cell stands for
  bool sorted = false;
};

Drawing drawing_of(const Grid& g, std::size_t room) {
  Drawing out;
  out.layers = (g.row.size() + most_rows - 1) / most_rows;
  out.experts = (g.col.size() + room - 1) / room;
  out.sorted = out.layers > 1 || out.experts > 1;
  if (out.sorted) {
    const std::size_t width = (g.col.size() + out.experts - 1) / out.experts;
    for (std::size_t r = 0; r < g.row.size(); r += out.layers)
      out.rows.push_back(together(g, r, std::min(g.row.size(), r + out.layers), width));
    return out;
  }
  for (std::size_t r = 0; r < g.row.size(); ++r) {
    Row row{g.row[r], {}};
    for (std::size_t c = 0; c < g.col.size(); ++c)
      row.cells.push_back(cell_of(g, r, c));
    out.rows.push_back(std::move(row));
  }
  return out;
}

std::string heading_of(const Map& m, const Drawing& d, const Grid& g) {
  if (!d.sorted) {
    return concat("Load of ", m.col, " ", g.col.front(), " to ", g.col.back(), " by ", m.row,
                  ", times an even share");
  }
  return concat("Load by ", m.row, ", times an even share: each row's ", m.col,
                "s from the busiest to the idlest",
                d.experts > 1 ? concat(", ", d.experts, " a cell") : "",
                d.layers > 1 ? concat(", ", d.layers, " ", m.row, "s a row") : "");
}

std::string legend(const Terminal& t, bool sorted) {
  const auto sign = [&](const Step& s) {
    return std::string(t.ascii ? s.letter : s.block);
  };
  return concat(sign(nothing[0]), sorted ? " one takes none  " : " none  ", sign(steps[0]),
                " under 1/3  ", sign(steps[1]), " under 2/3  ", sign(steps[2]), " about even  ",
                sign(steps[3]), " over 1.5  ", sign(steps[4]), " over 3");
}

const Table* around_chance(const Report& r) {
  for (const Table& t : r.tables) {
    if (draws(t) && t.chart == Chart::heatmap) {
      const Map m = map_of(t);
      if (m.value && m.value->around_chance && m.grids.size() == 1)
        return &t;
    }
  }
  return nullptr;
}

}  // namespace

Lines brief_map(const Terminal& t, const Report& r) {
  const Table* table = around_chance(r);
  if (!table)
    return {};
  const Map m = map_of(*table);
  const Grid& g = m.grids[0];
  int names = 0;
  for (const std::string& name : g.row)
    names = std::max(names, 2 * columns(name) + 1);  // "12-15", where rows stand together
  const std::size_t room = std::size_t(std::clamp(t.width - names - 4, 8, int(most_columns)));
  const Drawing d = drawing_of(g, room);
  const int cell_width = std::clamp(
      (t.width - names - 4) / int(std::max<std::size_t>(1, d.rows[0].cells.size())), 1, 3);
  names = 0;
  for (const Row& row : d.rows)
    names = std::max(names, columns(row.name));
  Lines out{""};
  for (const std::string& s : wrap(heading_of(m, d, g), t.width))
    out.push_back(t.bold(s));
  for (const Row& row : d.rows) {
    std::string line = concat("  ", padded(row.name, names, true), "  ");
    for (const Cell& c : row.cells)
      line += glyph(t, c, cell_width);
    out.push_back(line);
  }
  for (const std::string& s : wrap(legend(t, d.sorted), t.width - 2))
    out.push_back(t.dim("  " + s));
  return out;
}

}  // namespace moe::drawing
