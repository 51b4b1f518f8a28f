// Tables for a width: with "(chance 0.02)" beside the value when that fits, else "(0.02)" with the
// word in the heading, else in blocks of columns that repeat the keys, else one value a line. Words
// wider than half the terminal go on below; nothing is cut.
#include "analysis/report/terminal.h"
#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

enum class Beside { word, number };

struct Block {                                  // columns as written
  std::vector<std::vector<std::string>> cells;  // (column)(row), the heading first
  std::vector<int> width;
  std::vector<bool> right, light;
};

bool has_chance(const Column& c, std::size_t count) {
  for (std::size_t r = 0; r < count; ++r) {
    if (!chance_cell(c, r).empty())
      return true;
  }
  return false;
}

// Of a heading that may break between its words.
int longest_word(const std::string& heading) {
  int most = 0;
  for (const std::string& word : split(heading, ' '))
    most = std::max(most, columns(word));
  return most;
}

std::string cell_text(const Terminal& t, const Column& c, std::size_t r, Beside how, bool ranges) {
  std::string text = cell(c, r, t.ascii);
  if (const std::string range = interval_cell(c, r, t.ascii); ranges && !range.empty())
    text += " " + range;
  if (const std::string by = chance_beside(c, r, how == Beside::word, t.ascii); !by.empty())
    text += concat(" (", by, ")");
  return text;
}

// `ranges`: with the intervals beside the values.
Block written(const Terminal& t, const Table& table, std::size_t count, Beside how, bool ranges) {
  Block out;
  for (const Column& c : table.columns) {
    const bool chances = has_chance(c, count);
    std::vector<std::string> cells{heading(c) +
                                   (chances && how == Beside::number ? " (chance)" : "")};
    for (std::size_t r = 0; r < count; ++r)
      cells.push_back(cell_text(t, c, r, how, ranges));
    int widest = is_number(c) && !ranges ? longest_word(cells[0]) : columns(cells[0]);
    for (std::size_t r = 1; r < cells.size(); ++r)
      widest = std::max(widest, columns(cells[r]));
    if (!is_number(c))
      widest = std::min(widest, std::max(8, t.width / 2));
    out.cells.push_back(cells);
    out.width.push_back(widest);
    out.right.push_back(is_number(c));
    out.light.push_back(c.light);
  }
  return out;
}

// The keys of a table and the intervals of its figures; no columns where it has none.
Table intervals_of(const Terminal& t, const Table& table, std::size_t count) {
  Table out{.id = table.id};
  const std::size_t k = keys(table);
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    const Column& c = table.columns[i];
    Column ranges{.name = c.name, .cells = std::vector<std::string>{}};
    bool any = false;
    for (std::size_t r = 0; r < count; ++r) {
      std::get<std::vector<std::string>>(ranges.cells).push_back(interval_cell(c, r, t.ascii));
      any = any || !interval_cell(c, r, t.ascii).empty();
    }
    if (i < k)
      out.columns.push_back(c);
    else if (any)
      out.columns.push_back(std::move(ranges));
  }
  if (out.columns.size() == k)
    out.columns.clear();
  return out;
}

int total(const Block& b, const std::vector<std::size_t>& which) {
  int sum = 0;
  for (const std::size_t c : which)
    sum += b.width[c] + 2;
  return sum;
}

void put(const Terminal& t, const Block& b, const std::vector<std::size_t>& which, Lines& out) {
  for (std::size_t r = 0; r < b.cells[0].size(); ++r) {
    std::vector<Lines> cells;
    std::size_t high = 1;
    for (const std::size_t c : which) {
      const std::string& text = b.cells[c][r];
      cells.push_back(columns(text) > b.width[c] ? wrap(text, b.width[c]) : Lines{text});
      high = std::max(high, cells.back().size());
    }
    for (std::size_t i = 0; i < high; ++i) {
      std::string line;
      for (std::size_t at = 0; at < which.size(); ++at) {
        const std::size_t c = which[at];
        const std::string text =
            padded(i < cells[at].size() ? cells[at][i] : "", b.width[c], b.right[c]);
        line += "  " + (b.light[c] && r > 0 && i == 0 ? t.lamp(text) : text);
      }
      line.erase(line.find_last_not_of(' ') + 1);
      out.push_back(r == 0 ? t.dim(line) : line);
    }
  }
}

// One value a line, for a terminal that is too narrow for a column beside its key.
void records(const Terminal& t, const Table& table, std::size_t count, Lines& out) {
  for (std::size_t r = 0; r < count; ++r) {
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
      const Column& column = table.columns[c];
      const std::string by = chance_beside(column, r, true, t.ascii);
      const std::string range = interval_cell(column, r, t.ascii);
      const std::string text =
          concat(heading(column), " ", cell(column, r, t.ascii), range.empty() ? "" : " " + range,
                 by.empty() ? "" : concat(" (", by, ")"));
      bool first = true;
      for (const std::string& line : wrap(text, t.width - 4)) {
        out.push_back(concat(c == 0 && first ? "  " : "    ", line));
        first = false;
      }
    }
  }
}

std::vector<std::size_t> first_columns(std::size_t n) {
  std::vector<std::size_t> out(n);
  for (std::size_t i = 0; i < n; ++i)
    out[i] = i;
  return out;
}

// Blocks of columns that fit, each with the keys; false where not even one column fits beside them.
bool put_blocks(const Terminal& t, const Block& b, std::size_t keys, Lines& out) {
  const std::vector<std::size_t> key = first_columns(keys);
  const int room = t.width - total(b, key);
  if (room < 0)
    return false;
  for (std::size_t c = keys; c < b.width.size(); ++c) {
    if (b.width[c] + 2 > room)
      return false;
  }
  std::vector<std::size_t> block = key;
  for (std::size_t c = keys; c < b.width.size(); ++c) {
    if (total(b, block) + b.width[c] + 2 > t.width) {
      put(t, b, block, out);
      out.emplace_back();
      block = key;
    }
    block.push_back(c);
  }
  put(t, b, block, out);
  return true;
}

// Values side by side, and the intervals below, where only so it fits.
bool put_intervals_below(const Terminal& t, const Table& table, std::size_t count, Lines& out) {
  const Table ranges = intervals_of(t, table, count);
  const Block b = written(t, table, count, Beside::number, false);
  const std::vector<std::size_t> all = first_columns(b.width.size());
  if (ranges.columns.empty() || total(b, all) > t.width)
    return false;
  Lines below;
  const Block r = written(t, ranges, count, Beside::word, false);
  if (!put_blocks(t, r, keys(table), below))
    return false;
  put(t, b, all, out);
  out.emplace_back();
  const bool extremes = std::ranges::any_of(table.columns, &Column::extremes);
  out.push_back(t.dim(extremes ? "  lowest to highest" : "  95 % intervals"));
  out.insert(out.end(), below.begin(), below.end());
  return true;
}

}  // namespace

Lines table_lines(const Terminal& t, const Table& table, std::size_t count) {
  Lines out;
  const std::vector<std::size_t> all = first_columns(table.columns.size());
  Block b = written(t, table, count, Beside::word, true);
  if (total(b, all) > t.width)
    b = written(t, table, count, Beside::number, true);
  if (total(b, all) > t.width && put_intervals_below(t, table, count, out))
    return out;
  if (!put_blocks(t, b, keys(table), out))
    records(t, table, count, out);
  return out;
}

}  // namespace moe::drawing
