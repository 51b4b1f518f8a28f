// Tables for a width: with "(chance 0.02)" beside the value when that fits, else "(0.02)" with the
// word in the heading, else in blocks of columns that repeat the keys, else one value a line. Words
// wider than half the terminal go on below; nothing is cut.
#include "analysis/report/terminal.h"
#include "analysis/report/utf8.h"

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

Block written(const Terminal& t, const Table& table, std::size_t count, Beside how) {
  Block out;
  for (const Column& c : table.columns) {
    const bool chances = has_chance(c, count);
    std::vector<std::string> cells{heading(c) +
                                   (chances && how == Beside::number ? " (chance)" : "")};
    for (std::size_t r = 0; r < count; ++r) {
      std::string text = cell(c, r, t.ascii);
      if (const std::string range = interval_cell(c, r, t.ascii); !range.empty())
        text += " " + range;
      if (const std::string by = chance_beside(c, r, how == Beside::word, t.ascii); !by.empty())
        text += concat(" (", by, ")");
      cells.push_back(text);
    }
    int widest = 0;
    for (const std::string& s : cells)
      widest = std::max(widest, columns(s));
    if (!is_number(c))
      widest = std::min(widest, std::max(8, t.width / 2));
    out.cells.push_back(cells);
    out.width.push_back(widest);
    out.right.push_back(is_number(c));
    out.light.push_back(c.light);
  }
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

}  // namespace

Lines table_lines(const Terminal& t, const Table& table, std::size_t count) {
  Lines out;
  std::vector<std::size_t> all(table.columns.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] = i;
  Block b = written(t, table, count, Beside::word);
  if (total(b, all) > t.width)
    b = written(t, table, count, Beside::number);
  const std::size_t k = keys(table);
  const std::vector<std::size_t> key(all.begin(), all.begin() + std::ptrdiff_t(k));
  std::vector<std::size_t> block = key;
  for (std::size_t c = k; c < all.size(); ++c) {
    if (total(b, key) + b.width[c] + 2 > t.width) {
      records(t, table, count, out);
      return out;
    }
  }
  if (total(b, key) > t.width) {
    records(t, table, count, out);
    return out;
  }
  for (std::size_t c = k; c < all.size(); ++c) {
    if (total(b, block) + b.width[c] + 2 > t.width) {
      put(t, b, block, out);
      out.emplace_back();
      block = key;
    }
    block.push_back(c);
  }
  put(t, b, block, out);
  return out;
}

}  // namespace moe::drawing
