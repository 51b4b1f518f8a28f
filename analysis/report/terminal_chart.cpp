// Charts of characters: bars with the chance value marked on them, sparklines, maps of shades.
#include <array>
#include <cmath>

#include "analysis/report/colour.h"
#include "analysis/report/terminal.h"
#include "analysis/report/utf8.h"

namespace moe::drawing {
namespace {

std::string repeat(std::string_view s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i)
    out += s;
  return out;
}

// `from` to `to` (0..1) of `width` columns filled, the right end in eighths; the chance value is a
// mark over it.
std::string bar(const Terminal& t, double from, double to, double mark, int width) {
  static constexpr std::array<const char*, 8> part{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (from > to)
    std::swap(from, to);
  const int eighths = int(std::lround(std::clamp(to, 0.0, 1.0) * width * 8));
  const int full = eighths / 8;
  std::vector<std::string> cells(std::size_t(width), " ");
  for (int i = int(std::lround(std::clamp(from, 0.0, 1.0) * width)); i < full; ++i)
    cells[i] = t.ascii ? "#" : "█";
  if (full < width && eighths % 8 && to > from && !t.ascii)
    cells[full] = part[eighths % 8];
  if (mark >= 0 && mark <= 1)
    cells[std::min(width - 1, int(mark * width))] = t.ascii ? "|" : "┊";
  std::string out;
  for (const std::string& c : cells)
    out += c;
  return out.substr(0, out.find_last_not_of(' ') + 1);
}

std::string shade(const Terminal& t, const Map& m, double v, int width) {
  static constexpr std::array<const char*, 5> blocks{" ", "░", "▒", "▓", "█"};
  static constexpr std::array<const char*, 5> letters{" ", ".", ":", "+", "#"};
  if (std::isnan(v))
    return repeat(t.ascii ? "?" : "·", width);
  const double at = position(m, v);
  if (t.colour && !t.ascii) {
    return concat("\x1b[38;5;", xterm(m.diverging ? diverging(at) : sequential(at)), "m",
                  repeat("█", width), "\x1b[0m");
  }
  const auto level = std::size_t(std::min(4.0, at * 5));
  return repeat((t.ascii ? letters : blocks)[level], width);
}

// The colours' span and the chance value, on one line where they fit.
void put_scale(const Terminal& t, const Map& m, Lines& out) {
  const int after = digits(*m.value);
  const std::string low = number(m.low, after, t.ascii);
  const std::string high = number(m.high, after, t.ascii);
  const std::string by =
      std::isnan(m.chance) ? "" : concat("(chance ", number(m.chance, after, t.ascii), ")");
  const int each = columns(low) + columns(high) + 14 <= t.width ? 2 : 1;
  const int used = columns(low) + columns(high) + 4 + 5 * each;
  std::string line = "  " + low + " ";
  for (int i = 0; i < 5; ++i)
    line += shade(t, m, value_at(m, (i + 0.5) / 5), each);
  line += " " + high;
  const bool fits = used + 1 + columns(by) <= t.width;
  out.push_back(fits && !by.empty() ? line + " " + by : line);
  if (!fits && !by.empty())
    out.push_back("  " + by);
  for (const std::string& s : wrap(m.inside_words(), t.width - 2))
    out.push_back("  " + s);
}

std::string bar_of(const Terminal& t, const Column& c, std::size_t r, const Axis& a, int room) {
  const double v = value(c, r);
  if (std::isnan(v))
    return "";
  const auto at = [&](double to) {
    return (to - a.low) / (a.high - a.low);
  };
  return bar(t, at(0), std::isinf(v) ? double(v > 0) : at(v), at(chance(c, r)), room);
}

void put_bars(const Terminal& t, const Table& table, const Column& c, std::size_t count,
              Lines& out) {
  std::vector<std::string> left, right;
  int lw = 0;
  int rw = 0;
  for (std::size_t r = 0; r < count; ++r) {
    left.push_back(clip(cell(table.columns[0], r, t.ascii), std::max(6, t.width / 3), t.ascii));
    const std::string by = chance_beside(c, r, t.width >= 40, t.ascii);
    right.push_back(concat(cell(c, r, t.ascii), by.empty() ? "" : concat(" (", by, ")")));
    lw = std::max(lw, columns(left.back()));
    rw = std::max(rw, columns(right.back()));
  }
  const int room = std::min(60, t.width - lw - rw - 6);
  if (room < 4)
    return;  // the table has it
  const Axis axis = axis_of({{&c}}, true);
  for (std::size_t r = 0; r < count; ++r) {
    const std::string line = concat("  ", padded(left[r], lw, is_number(table.columns[0])), "  ",
                                    padded(right[r], rw, true), "  ", bar_of(t, c, r, axis, room));
    out.push_back(line.substr(0, line.find_last_not_of(' ') + 1));
  }
}

// The names of the first and the last column of a block, as far apart as it is wide.
std::string ends(const Terminal& t, const Grid& g, std::size_t first, std::size_t last, int span) {
  std::string head = clip(g.col[first], span, t.ascii);
  if (last - first > 1 && columns(g.col[last - 1]) + columns(head) < span)
    head += padded(g.col[last - 1], span - columns(head), true);
  return head;
}

// A grid in blocks of columns that fit, each under its first and last column's name.
void put_grid(const Terminal& t, const Map& m, const Grid& g, Lines& out) {
  int lw = 0;
  for (const std::string& r : g.row)
    lw = std::max(lw, columns(r));
  lw = std::min(lw, std::max(4, t.width / 3));
  const auto room = std::size_t(std::max(4, t.width - lw - 4));
  const std::size_t cols = g.col.size();
  const std::size_t cell_width = cols * 3 <= room ? 3 : cols * 2 <= room ? 2 : 1;
  const std::size_t each = std::max<std::size_t>(1, room / cell_width);
  for (std::size_t first = 0; first < cols; first += each) {
    const std::size_t last = std::min(cols, first + each);
    const int span = int((last - first) * cell_width);
    out.push_back(
        t.dim(concat(std::string(std::size_t(lw) + 4, ' '), ends(t, g, first, last, span))));
    for (std::size_t r = 0; r < g.row.size(); ++r) {
      std::string line = concat("  ", padded(clip(g.row[r], lw, t.ascii), lw, true), "  ");
      for (std::size_t c = first; c < last; ++c)
        line += shade(t, m, g.at(r, c), int(cell_width));
      out.push_back(line);
    }
  }
}

}  // namespace

Lines bar_lines(const Terminal& t, const Table& table, std::size_t count) {
  Lines out;
  for (const Panel& p : panels(table)) {
    if (!out.empty())
      out.emplace_back();
    if (p.series.size() == 1) {
      // chance values stand without the word
      const bool bare = t.width < 40 && !chance_cell(*p.series[0], 0).empty();
      out.push_back(t.dim(
          clip(concat("  ", heading(*p.series[0]), bare ? " (chance)" : ""), t.width, t.ascii)));
      put_bars(t, table, *p.series[0], count, out);
      continue;
    }
    const Map m = map_of(table, p);
    put_grid(t, m, pooled(m.grids[0], 64, 256), out);
    for (const std::string& s : wrap(heading(table.columns[0]) + " across", t.width - 2))
      out.push_back("  " + s);
    put_scale(t, m, out);
  }
  return out;
}

namespace {

// One step a row, or of as many rows as there is room for.
std::string sparks(const Terminal& t, const Column& c, double low, double high, std::size_t room) {
  const std::size_t n = rows(c);
  std::vector<double> shown;
  for (std::size_t i = 0; i < std::min(n, room); ++i)
    shown.push_back(value(c, n <= room ? i : i * (n - 1) / std::max<std::size_t>(1, room - 1)));
  return sparkline(t, shown, low, high);
}

// `lw`: columns that the headings of all series take; "" where no value is finite.
std::string spark_line(const Terminal& t, const Column& c, int lw) {
  double low = INFINITY;
  double high = -INFINITY;
  for (std::size_t r = 0; r < rows(c); ++r) {
    if (const double v = value(c, r); std::isfinite(v)) {
      low = std::min(low, v);
      high = std::max(high, v);
    }
  }
  if (low > high)
    return "";
  const std::string range = concat("  ", number(low, digits(c), t.ascii), t.ascii ? " to " : " – ",
                                   number(high, digits(c), t.ascii));
  const auto room = std::size_t(std::max(1, std::min(60, t.width - lw - 4 - columns(range))));
  return clip(concat("  ", padded(clip(heading(c), lw, t.ascii), lw, false), "  ",
                     sparks(t, c, low, high, room), range),
              t.width, t.ascii);
}

}  // namespace

std::string sparkline(const Terminal& t, const std::vector<double>& values, double low,
                      double high) {
  static constexpr std::array<const char*, 8> steps{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  static constexpr std::array<const char*, 8> letters{"_", ".", "-", "~", "=", "+", "*", "#"};
  std::string out;
  for (const double v : values) {
    const double at = high > low ? std::clamp((v - low) / (high - low), 0.0, 1.0) : 0.5;
    out += std::isnan(v) ? " " : (t.ascii ? letters : steps)[std::size_t(std::min(7.0, at * 8))];
  }
  return out;
}

Lines spark_lines(const Terminal& t, const Table& table) {
  Lines out;
  int lw = 0;
  const std::vector<Panel> all = panels(table);
  for (const Panel& p : all) {
    for (const Column* c : p.series)
      lw = std::max(lw, columns(heading(*c)));
  }
  lw = std::min(lw, std::max(6, t.width / 3));
  for (const Panel& p : all) {
    for (const Column* c : p.series) {
      if (std::string line = spark_line(t, *c, lw); !line.empty())
        out.push_back(std::move(line));
    }
  }
  return out;
}

Lines map_lines(const Terminal& t, const Map& m) {
  Lines out;
  std::size_t shown = 0;
  for (const Grid& g : m.grids) {
    if (++shown > 4)
      break;
    if (!m.facet.empty())
      out.push_back(clip(concat("  ", m.facet, " ", g.facet), t.width, t.ascii));
    const Grid small = pooled(g, 48, std::size_t(std::max(16, 2 * t.width)));
    put_grid(t, m, small, out);
    if (small.pooled > 1) {
      for (const std::string& s :
           wrap(concat("each cell is the largest of ", small.pooled, " x ", small.pooled),
                t.width - 2)) {
        out.push_back("  " + s);
      }
    }
  }
  if (m.grids.size() > 4) {
    for (const std::string& s :
         wrap(concat(m.grids.size() - 4, " more maps: -o report.html draws all"), t.width - 2)) {
      out.push_back("  " + s);
    }
  }
  const std::string names = concat(m.row, " down, ", m.col, " across: ", heading(*m.value));
  for (const std::string& s : wrap(names, t.width - 2))
    out.push_back("  " + s);
  put_scale(t, m, out);
  return out;
}

}  // namespace moe::drawing
