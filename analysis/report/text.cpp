// A report for a terminal: findings first, then the tables by section, drawn with characters where
// a chart is asked for.
#include <set>

#include "analysis/report/render.h"
#include "analysis/report/terminal.h"
#include "analysis/report/utf8.h"

namespace moe {
namespace drawing {

std::string Terminal::paint(const char* code, const std::string& s) const {
  return colour && !s.empty() ? concat("\x1b[", code, "m", s, "\x1b[0m") : s;
}

std::string Terminal::lamp(const std::string& word) const {
  const char* code = word.starts_with("red")      ? "1;31"
                     : word.starts_with("yellow") ? "33"
                     : word.starts_with("grey")   ? "2"
                                                  : "32";
  return paint(code, word);
}

std::string Terminal::rule(int n) const {
  std::string out;
  for (int i = 0; i < n; ++i)
    out += ascii ? "-" : "─";
  return out;
}

void TextPage::paragraph(std::string_view mark, std::string_view text, bool dim) {
  const std::string indent(std::size_t(columns(mark)), ' ');
  bool first = true;
  for (const std::string& s : wrap(clean(text), std::max(8, t_.width - columns(mark)))) {
    const std::string whole = (first ? std::string(mark) : indent) + s;
    line(dim ? t_.dim(whole) : whole);
    first = false;
  }
}

void TextPage::title(std::string_view text, bool ruled) {
  for (const std::string& s : wrap(clean(text), t_.width))
    line(t_.bold(s));
  if (ruled)
    line(t_.dim(t_.rule(std::min(t_.width, std::max(12, columns(clean(text)))))));
}

std::string TextPage::text() const {
  std::string out;
  for (const std::string& s : lines_)
    out += s + "\n";
  return out;
}

}  // namespace drawing

namespace {

using namespace drawing;

// Words only, and too many for one line a row: a glossary, with everything but the name wrapped and
// nothing cut.
bool is_glossary(const Terminal& t, const Table& table) {
  int width = 0;
  for (const Column& c : table.columns) {
    const auto* words = std::get_if<std::vector<std::string>>(&c.cells);
    if (!words)
      return false;
    int most = 0;
    for (const std::string& w : *words)
      most = std::max(most, columns(clean(w)));
    width += most + 2;
  }
  return table.columns.size() > 1 && width > t.width;
}
void put_glossary(TextPage& page, const Terminal& t, const Table& table) {
  int name_width = 0;
  for (std::size_t r = 0; r < rows(table); ++r)
    name_width = std::max(name_width, columns(cell(table.columns[0], r)));
  name_width = std::min(name_width, t.width / 3);
  for (std::size_t r = 0; r < rows(table); ++r) {
    const std::string name = clean(cell(table.columns[0], r));
    page.paragraph("  " + padded(name, name_width, false) + "  ", cell(table.columns[1], r));
    for (std::size_t c = 2; c < table.columns.size(); ++c) {
      if (const std::string more = cell(table.columns[c], r); !more.empty())
        page.paragraph(std::string(std::size_t(name_width) + 4, ' '), more, true);
    }
  }
}

// Draws maps and bars; true where that carries every value that the table would.
bool put_chart(TextPage& page, const Terminal& t, const Table& table, std::size_t shown) {
  const bool map = table.chart == Chart::heatmap;
  Lines drawn;
  if (map && draws(table))
    drawn = map_lines(t, map_of(table));
  else if (draws(table) && table.chart == Chart::bars)
    drawn = bar_lines(t, table, shown);
  page.lines(drawn);
  bool single = true;  // bars with one series carry every value themselves
  for (const Panel& p : panels(table))
    single = single && p.series.size() == 1;
  return !drawn.empty() && ((map && rows(table) > t.rows) ||
                            (table.chart == Chart::bars && single && drawn.size() > shown));
}

// What column headings mean, each told where it first stands.
using Meanings = std::set<std::string>;

void put_meanings(TextPage& page, const Table& table, Meanings& told) {
  for (const Column& c : table.columns) {
    const std::string meaning = concat(heading(c), ": ", c.meaning);
    if (!c.meaning.empty() && told.insert(meaning).second)
      page.paragraph("  ", meaning, true);
  }
}

void put_table(TextPage& page, const Terminal& t, const Table& table, Meanings& meanings) {
  page.line();
  page.title(table.title, false);
  if (!table.reading.empty())
    page.paragraph("", table.reading, true);
  page.warnings(table.warnings);
  const std::size_t n = rows(table);
  const std::size_t shown = table.detail ? std::min(n, t.rows) : n;
  if (n == 0)
    return page.line("  no rows");
  if (is_glossary(t, table))
    return put_glossary(page, t, table);
  const bool told = put_chart(page, t, table, shown);
  if (!told)
    page.lines(table_lines(t, table, shown));
  if (draws(table) && table.chart == Chart::lines)
    page.lines(spark_lines(t, table));
  if (told && table.chart == Chart::heatmap)
    page.paragraph("  ", concat(n, " values: -o report.csv has all"), true);
  else if (shown < n)
    page.paragraph("  ", concat(n - shown, " more rows: -o report.csv has all"), true);
  if (const std::string inside = inside_words(table, t.ascii); !inside.empty())
    page.paragraph("  ", inside, true);
  put_meanings(page, table, meanings);
}

// Long facts on one trace are where it comes from, and stand at the end.
bool stands_in_head(const Report& report, std::string_view text) {
  return report.subject.empty() || short_fact(text);
}

// Names and what they stand for, in two columns where there is room.
void put_facts(TextPage& page, const Terminal& t, const Report& report, bool of_one_line) {
  int name_width = 0;
  for (const auto& [name, text] : report.facts)
    name_width = std::max(name_width, columns(clean(name)));
  for (const auto& [name, text] : report.facts) {
    if (stands_in_head(report, text) != of_one_line)
      continue;
    if (name_width + 10 <= t.width)
      page.paragraph(padded(clean(name), name_width, false) + "  ", text);
    else
      page.paragraph("", concat(name, ": ", text));
  }
}

// What the trace is made of and by, in words too long for the head.
void put_origin(TextPage& page, const Terminal& t, const Report& report) {
  const bool any = std::ranges::any_of(
      report.facts, [&](const auto& fact) { return !stands_in_head(report, fact.second); });
  if (!any)
    return;
  page.line();
  page.title("Origin", true);
  put_facts(page, t, report, false);
}

}  // namespace

std::string render_text(const Report& report, const RenderOptions& options) {
  const Terminal t{std::max(20, options.width), options.colour, options.ascii,
                   std::size_t(options.rows > 0 ? options.rows : 12)};
  TextPage page(t);
  page.title(report.title, true);
  put_facts(page, t, report, true);
  if (!report.findings.empty()) {
    page.line();
    page.title("Findings", false);
  }
  for (const Finding& f : report.findings)
    page.paragraph(t.ascii ? "* " : "• ", f.text);
  page.warnings(report.warnings);
  Meanings meanings;
  for (const Section& s : sections(report)) {
    if (!s.name.empty()) {
      page.line();
      page.title(s.name, true);
    }
    for (const Table* table : s.tables)
      put_table(page, t, *table, meanings);
  }
  if (const Lines sample = sample_lines(t, report); !sample.empty()) {
    page.line();
    page.title("The text, every token in the colour of its first expert (middle layer)", true);
    page.lines(sample);
  }
  put_origin(page, t, report);
  return page.text();
}

}  // namespace moe
