// GitHub Markdown: a heading a section and a table, chance beside the value, a map as a table when
// it is narrow enough. Nothing in a cell can end the cell or start a tag.
#include "analysis/report/cells.h"
#include "analysis/report/render.h"
#include "analysis/report/utf8.h"

namespace moe {
namespace {

using namespace drawing;

std::string safe(std::string_view text) {
  std::string out;
  for (const char c : clean(text)) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += (std::string_view("|\\`*_[]").find(c) != std::string_view::npos ? "\\" : "") +
             std::string(1, c);
    }
  }
  return out;
}

using Lines = std::vector<std::vector<std::string>>;  // the first is the head

std::string drawn(const Lines& lines, const std::vector<bool>& right) {
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    for (const std::string& s : lines[i])
      out += "| " + s + " ";
    out += "|\n";
    if (i > 0)
      continue;
    for (const bool r : right)
      out += r ? "|---:" : "|---";
    out += "|\n";
  }
  return out;
}

std::string long_table(const Table& t, std::size_t count) {
  Lines lines(1);
  std::vector<bool> right;
  for (const Column& c : t.columns) {
    lines[0].push_back(safe(heading(c)));
    right.push_back(is_number(c));
  }
  for (std::size_t r = 0; r < count; ++r) {
    lines.emplace_back();
    for (const Column& c : t.columns) {
      const std::string by_chance = chance_beside(c, r, true);
      const std::string range = interval_cell(c, r);
      lines.back().push_back(safe(cell(c, r)) + (range.empty() ? "" : " " + safe(range)) +
                             (by_chance.empty() ? "" : " (" + by_chance + ")"));
    }
  }
  return drawn(lines, right);
}

std::string map_table(const Map& m) {
  std::string out;
  for (const Grid& g : m.grids) {
    if (!m.facet.empty())
      out += concat("\n", safe(m.facet), " ", safe(g.facet), ":\n\n");
    Lines lines{{concat(safe(m.row), " \\\\ ", safe(m.col))}};
    for (const std::string& c : g.col)
      lines[0].push_back(safe(c));
    for (std::size_t r = 0; r < g.row.size(); ++r) {
      lines.push_back({safe(g.row[r])});
      for (std::size_t c = 0; c < g.col.size(); ++c) {
        lines.back().push_back(number(g.at(r, c), digits(*m.value)) +
                               (g.inside[r * g.col.size() + c] ? " ≈" : ""));
      }
    }
    std::vector<bool> right(g.col.size() + 1, true);
    right[0] = false;
    out += drawn(lines, right);
  }
  if (m.chance == m.chance) {
    out += concat("\n", safe(heading(*m.value)), "; chance ", number(m.chance, digits(*m.value)),
                  ".\n");
  }
  if (const std::string inside = m.inside_words(); !inside.empty())
    out += concat("\n", inside, ".\n");
  return out;
}

std::string table_md(const Table& t, const RenderOptions& options) {
  std::string out = concat("\n### ", safe(t.title), "\n\n");
  if (!t.reading.empty())
    out += safe(t.reading) + "\n\n";
  for (const std::string& w : t.warnings)
    out += concat("> **Warning:** ", safe(w), "\n\n");
  const Map m = map_of(t);
  const std::size_t n = rows(t);
  const std::size_t most = options.rows > 0 ? std::size_t(options.rows) : 24;
  if (n == 0)
    return out + "No rows.\n";
  if (m.value && m.grids[0].col.size() <= 16 && m.cells() <= 32 * most) {
    out += map_table(m);
  } else {
    const std::size_t shown = t.detail || n > 500 ? std::min(n, most) : n;
    out += long_table(t, shown);
    if (shown < n)
      out += concat("\n", n - shown, " more rows: `-o report.csv` has all.\n");
  }
  const std::string inside = inside_words(t);
  std::string legend = inside.empty() ? "" : concat("- ", safe(inside), "\n");
  for (const Column& c : t.columns) {
    if (!c.meaning.empty())
      legend += concat("- **", safe(heading(c)), "**: ", safe(c.meaning), "\n");
  }
  return out + (legend.empty() ? "" : "\n" + legend);
}

}  // namespace

std::string render_md(const Report& report, const RenderOptions& options) {
  std::string out = concat("# ", safe(report.title), "\n");
  if (!report.facts.empty())
    out += "\n| | |\n|---|---|\n";
  for (const auto& [name, text] : report.facts)
    out += concat("| ", safe(name), " | ", safe(text), " |\n");
  if (!report.findings.empty())
    out += "\n## Findings\n\n";
  for (const Finding& f : report.findings)
    out += concat("- ", safe(f.text), "\n");
  for (const std::string& w : report.warnings)
    out += concat("\n> **Warning:** ", safe(w), "\n");
  for (const Section& s : sections(report)) {
    if (!s.name.empty())
      out += concat("\n## ", safe(s.name), "\n");
    for (const Table* t : s.tables)
      out += table_md(*t, options);
  }
  return out;
}

}  // namespace moe
