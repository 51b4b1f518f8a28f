// The short answer, for a terminal or an issue: what was looked at, the lights with their layers,
// who takes how much, and the findings that matter most, worst first. Never more than `most_lines`.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "analysis/report/brief_map.h"
#include "analysis/report/ranking.h"
#include "analysis/report/render.h"
#include "analysis/report/terminal.h"
#include "analysis/report/utf8.h"

namespace moe {
namespace {

using namespace drawing;

constexpr std::size_t most_lines = 50;
constexpr std::size_t most_findings = 6;
constexpr std::size_t lines_of_finding = 3;
constexpr std::size_t lines_of_warnings = 5;
constexpr std::size_t lines_at_end = 3;
constexpr int least_spark = 8;

std::string painted(const Terminal& t, Priority w, const std::string& text) {
  return w == Priority::told || w == Priority::overview ? text
         : w == Priority::chance                        ? t.dim(text)
                                                        : t.lamp(text);
}

// Whole sentences of `text` while they take no more than `most` lines, one at least.
std::string opening(const std::string& text, int width, std::size_t most) {
  std::size_t end = text.size();
  while (wrap(text.substr(0, end), width).size() > most) {
    const std::size_t stop = text.rfind(". ", end - 2);
    if (stop == text.npos || stop < 2)
      break;
    end = stop + 1;
  }
  return end == text.size() ? text : text.substr(0, end) + " ...";
}

// The values in no more than `room` steps, each the worst of as many layers; how many they are.
struct Steps {
  std::vector<double> value;
  std::size_t layers = 1;
};
Steps steps_of(const Tile& tile, std::size_t room) {
  Steps out;
  const std::size_t n = tile.by_layer.size();
  out.layers = (n + room - 1) / std::max<std::size_t>(1, room);
  for (std::size_t i = 0; i < n; i += out.layers) {
    double worst = tile.by_layer[i];
    for (std::size_t j = i; j < std::min(n, i + out.layers); ++j) {
      const double v = tile.by_layer[j];
      if (std::isnan(worst) || (tile.low_is_bad ? v < worst : v > worst))
        worst = v;
    }
    out.value.push_back(worst);
  }
  return out;
}

std::string spark_of(const Terminal& t, const Tile& tile, int room) {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const double v : tile.by_layer) {
    if (std::isfinite(v)) {
      low = std::min(low, v);
      high = std::max(high, v);
    }
  }
  return sparkline(t, steps_of(tile, std::size_t(room)).value, low, high);
}

using Cells = std::vector<std::string>;

// name, light, worst with its interval where `intervals`, chance, layer
Cells cells_of(const Terminal& t, const Tile& tile, bool intervals) {
  const std::string range = interval_cell(tile.worst, 0, t.ascii);
  return {tile.name, tile.light,
          cell(tile.worst, 0, t.ascii) + (intervals && !range.empty() ? " " + range : ""),
          chance_beside(tile.worst, 0, false, t.ascii), concat(tile.layer)};
}

int total(const std::vector<int>& width) {
  int out = 0;
  for (const int w : width)
    out += w + 2;
  return out;
}

std::vector<int> widths_of(const std::vector<Cells>& all) {
  std::vector<int> out(all[0].size(), 0);
  for (const Cells& row : all) {
    for (std::size_t c = 0; c < row.size(); ++c)
      out[c] = std::max(out[c], columns(row[c]));
  }
  return out;
}

std::vector<Cells> rows_of(const Terminal& t, const Report& r, bool intervals) {
  std::vector<Cells> out{{"", "light", intervals ? "worst [95 %]" : "worst", "chance", "layer"}};
  for (const Tile& tile : r.tiles)
    out.push_back(cells_of(t, tile, intervals));
  return out;
}

// "load CV from 0.25, 0.75; MaxVio from 1, 2"
std::string turns_of(const std::vector<Tile>& tiles) {
  std::string out;
  for (const Tile& tile : tiles) {
    if (!tile.turns.empty())
      out += concat(out.empty() ? "" : "; ", tile.name, " ", tile.turns);
  }
  return out;
}

// The lights as lines; with intervals where they leave room for the layers.
void put_lights(TextPage& page, const Terminal& t, const Report& r) {
  if (r.tiles.empty())
    return;
  std::vector<Cells> cells = rows_of(t, r, true);
  if (t.width - total(widths_of(cells)) - 2 < least_spark)
    cells = rows_of(t, r, false);
  const std::vector<int> width = widths_of(cells);
  const int room = std::min(32, t.width - total(width) - 2);
  page.line();
  for (std::size_t row = 0; row < cells.size(); ++row) {
    std::string line;
    for (std::size_t c = 0; c < width.size(); ++c) {
      const std::string text = padded(cells[row][c], width[c], c > 1);
      line += "  " + (row > 0 && c == 1 ? t.lamp(text) : text);
    }
    if (room >= least_spark)
      line += "  " + (row == 0 ? "by layer" : spark_of(t, r.tiles[row - 1], room));
    line.erase(line.find_last_not_of(' ') + 1);
    page.line(row == 0 ? t.dim(line) : line);
  }
  const std::size_t each = room >= least_spark ? steps_of(r.tiles[0], std::size_t(room)).layers : 1;
  if (each > 1)
    page.paragraph("  ", concat("by layer: each step is the worst of ", each, " layers"), true);
  const std::string turns = turns_of(r.tiles);
  if (!turns.empty())
    page.paragraph("  ", "yellow, red: " + turns, true);
}

void put_warnings(TextPage& page, const Terminal& t, const Report& r) {
  std::size_t shown = 0;
  const std::size_t before = page.size();
  for (const std::string& w : r.warnings) {
    const std::string text = opening(w, t.width - 2, 2);
    if (page.size() - before + wrap(text, t.width - 2).size() > lines_of_warnings)
      break;
    page.paragraph("! ", text);
    ++shown;
  }
  if (shown < r.warnings.size())
    page.paragraph("! ", concat(r.warnings.size() - shown,
                                r.warnings.size() - shown == 1 ? " more warning" : " more warnings",
                                ": --all"));
}

// As many as the page has lines for; how many are left.
std::size_t put_findings(TextPage& page, const Terminal& t, const Report& r) {
  const std::vector<const Finding*> all = ranked_findings(r);
  if (all.empty())
    return 0;
  const bool weighed = !r.tiles.empty();
  page.line();
  page.title(weighed ? "Findings, worst first" : "Findings", false);
  std::size_t shown = 0;
  for (const Finding* f : all) {
    const int mark_width = weighed ? 10 : 4;
    const std::string text = opening(f->text, std::max(8, t.width - mark_width), lines_of_finding);
    const std::size_t lines = wrap(text, std::max(8, t.width - mark_width)).size();
    if (shown == most_findings || page.size() + lines + lines_at_end > most_lines)
      break;
    const std::string word = padded(word_of(f->priority), mark_width - 4, false);
    std::string mark = weighed   ? concat("  ", painted(t, f->priority, word), "  ")
                       : t.ascii ? "  * "
                                 : "  • ";
    for (const std::string& s : wrap(clean(text), std::max(8, t.width - mark_width))) {
      page.line(mark + s);
      mark = std::string(std::size_t(mark_width), ' ');
    }
    ++shown;
  }
  return all.size() - shown;
}

// Without the words beside the figures: ids, meanings.
Table of_figures(const Table& table) {
  Table out = table;
  std::size_t at = 0;
  bool any = false;
  std::erase_if(out.columns, [&](const Column& c) {
    any = any || is_number(c);
    return at++ > 0 && any && !is_number(c) && !c.light;
  });
  return out;
}

// Tables of a report without lights, while there is room: the first ones are its answer.
void put_tables(TextPage& page, const Terminal& t, const Report& r) {
  for (const Table& table : r.tables) {
    if (table.detail || rows(table) == 0)
      continue;
    const Table figures = of_figures(table);
    const Lines lines = table_lines(t, figures, rows(figures));
    if (page.size() + lines.size() + 2 + lines_at_end > most_lines)
      return;
    page.line();
    page.title(table.title, false);
    page.lines(lines);
  }
}

void put_end(TextPage& page, const Report& r, std::size_t findings_left) {
  page.line();
  const std::string more = findings_left == 0
                               ? ""
                               : concat(findings_left, findings_left == 1 ? " more finding and "
                                                                          : " more findings and ");
  page.paragraph("", concat(more, findings_left ? "all " : "All ", r.tables.size(),
                            r.tables.size() == 1 ? " table" : " tables",
                            ": --all; as a page: -o report.html; one figure: --metric NAME"));
}

// What it is about: the subject, or where a report has none its title and facts.
void put_head(TextPage& page, const Report& r) {
  if (!r.subject.empty())
    return page.title(r.subject, false);
  page.title(r.title, false);
  for (const auto& [name, text] : r.facts) {
    if (!name.starts_with("report "))
      page.paragraph("", concat(name, ": ", text));
  }
}

}  // namespace

std::string render_brief(const Report& report, const RenderOptions& options) {
  const Terminal t{std::max(20, options.width), options.colour, options.ascii, 12};
  TextPage page(t);
  put_head(page, report);
  put_lights(page, t, report);
  if (!report.tiles.empty())
    page.lines(brief_map(t, report));
  put_warnings(page, t, report);
  const std::size_t left = put_findings(page, t, report);
  if (report.tiles.empty())
    put_tables(page, t, report);
  put_end(page, report, left);
  return page.text();
}

}  // namespace moe
