// A table on the page: title, reading, figure, and its data (one click away under a figure).
#include "analysis/report/page.h"

#include <algorithm>

#include <fmt/format.h>

#include "analysis/report/svg.h"
#include "analysis/report/utf8.h"

namespace moe::drawing {
namespace {

constexpr std::size_t pivot_limit = 10000;  // cells of a map whose data is shown as a map, whole

constexpr std::size_t tall = 24;  // rows that stand on the page; more scroll in a box

std::string scroll(const std::string& inside, const std::string& label, std::size_t n = 0,
                   bool wordy = false) {
  return concat("<div class=\"scroll", n > tall ? " tall" : "", wordy ? " wordy" : "", "\"",
                " tabindex=0 role=region aria-label=\"", html(label), "\">", inside, "</div>");
}

std::string head_cell(const Column& c) {
  return concat("<th scope=col", is_number(c) ? " class=n" : "",
                c.meaning.empty() ? "" : " title=\"" + html(c.meaning) + "\"",
                "><button type=button>", html(c.name),
                c.unit.empty() || c.unit == c.name ? "" : " <small>" + html(c.unit) + "</small>",
                "</button></th>");
}

constexpr std::size_t wordy_in_print = 4;  // rows, see the style sheet

// Whether a cell holds more text than a line of paper: a path through many layers.
bool is_wordy(const Table& t) {
  constexpr int line = 160;
  return std::ranges::any_of(t.columns, [](const Column& c) {
    const auto* words = std::get_if<std::vector<std::string>>(&c.cells);
    return words && std::ranges::any_of(*words, [](const auto& w) { return columns(w) > line; });
  });
}

std::string long_table(const Table& t, const RenderOptions& options) {
  const std::size_t n = rows(t);
  const std::size_t most = options.rows > 0 ? std::size_t(options.rows) : 200;
  const std::size_t shown = t.detail || n > 400 ? std::min(n, most) : n;
  std::string out = "<table class=data><thead><tr>";
  for (const Column& c : t.columns)
    out += head_cell(c);
  out += "</tr></thead><tbody>";
  for (std::size_t r = 0; r < shown; ++r) {
    out += "<tr>";
    for (const Column& c : t.columns) {
      const std::string by = chance_beside(c, r, false);
      const std::string range = interval_cell(c, r);
      const std::string text = html(cell(c, r));
      if (c.light) {
        out += concat("<td class=w><span class=\"lamp ", text, "\">", text, "</span>");
      } else {
        out += concat(!is_number(c)         ? "<td class=w>"
                      : inside_chance(c, r) ? "<td class=near>"
                                            : "<td>",
                      text, range.empty() ? "" : concat("<small> ", range, "</small>"),
                      by.empty() ? "" : concat("<small class=by> ", by, "</small>"));
      }
    }
    out += "\n";
  }
  out = scroll(out + "</tbody></table>", t.title, shown, shown > wordy_in_print && is_wordy(t));
  if (shown < n) {
    out +=
        concat("<p class=note>", n - shown, " more rows: <code>-o report.csv</code> has all.</p>");
  }
  return out;
}

// The largest values of a map too large for the page.
std::string largest_table(const Table& t, const Map& m, const RenderOptions& options) {
  const Table top = largest_first(t, m, options.rows > 0 ? std::size_t(options.rows) : 200);
  return concat("<p class=note>The ", rows(top), " largest of ", rows(t),
                ": <code>-o report.csv</code> has all.</p>", long_table(top, options));
}

std::string pivot_table(const Table& t, const Map& m, const std::string& id) {
  std::string out = concat("<table class=\"data pivot\" id=\"", id, "\"><thead><tr>",
                           m.facet.empty() ? "" : "<th>" + html(m.facet) + "</th>", "<th>",
                           html(m.row), " \\ ", html(m.col), "</th>");
  for (const std::string& c : m.grids[0].col)
    out += concat("<th scope=col class=n>", html(c), "</th>");
  out += "</tr></thead><tbody>";
  for (const Grid& g : m.grids) {
    for (std::size_t r = 0; r < g.row.size(); ++r) {
      out += concat("<tr>", m.facet.empty() ? "" : "<th>" + html(g.facet) + "</th>",
                    "<th scope=row>", html(g.row[r]), "</th>");
      for (std::size_t c = 0; c < g.col.size(); ++c) {
        out += concat("<td>", number(g.at(r, c), digits(*m.value)),
                      g.inside[r * g.col.size() + c] ? " ≈" : "");
      }
      out += "\n";
    }
  }
  return scroll(out + "</tbody></table>", t.title);
}

std::string map_figure(const Table& t, const Map& m, const std::string& id) {
  std::string out =
      concat("<div class=scalebox><span>",
             html(m.row.empty() && !m.value->unit.empty() ? m.value->unit : heading(*m.value)),
             "</span>", map_scale(m, id + "g"), "</div>");
  const bool one = m.grids.size() == 1;
  out += one ? "" : "<div class=facets>";
  for (std::size_t i = 0; i < std::min<std::size_t>(m.grids.size(), 64); ++i) {
    const Grid& g = m.grids[i];
    const std::string hover =
        m.cells() > pivot_limit
            ? ""
            : fmt::format(" data-map=\"{}p\" data-first={} data-rows={} data-cols={}", id,
                          i * g.row.size(), g.row.size(), g.col.size());
    const bool broad = g.col.size() > 12;
    const std::string chart = map_chart(m, g, hover, one ? 1040 : 270);
    if (one) {
      out += scroll(concat("<div class=\"", broad ? "broad" : "slim", "\">", chart, "</div>"),
                    t.title);
    } else {
      out += concat("<figure><figcaption>", html(m.facet), " ", html(g.facet), "</figcaption>",
                    chart, "</figure>");
    }
  }
  const std::string inside = m.inside_words();
  return out + (one ? "" : "</div>") +
         (inside.empty() ? "" : concat("<p class=note>", html(inside), ".</p>"));
}

// more series or bars than a chart can tell apart
bool drawn_as_map(const Table& t, const Panel& p) {
  const std::size_t groups = p.series.size();
  return groups > 8 || (t.chart == Chart::bars && groups > 1 && groups * rows(t) > 160);
}

// The heading of a panel among others, or the colours of its series.
std::string caption(const Panel& p, bool alone) {
  std::string out;
  if (p.series.size() > 1) {
    for (std::size_t s = 0; s < p.series.size(); ++s) {
      out += fmt::format("<span title=\"{}\"><i class=\"s{}\"></i>{}</span>",
                         html(p.series[s]->meaning), s, html(heading(*p.series[s])));
    }
    return concat("<figcaption class=keys>", out, "</figcaption>");
  }
  return alone ? ""
               : concat("<figcaption title=\"", html(p.series[0]->meaning), "\">",
                        html(heading(*p.series[0])), "</figcaption>");
}

std::string panel_figure(const Table& t, const Panel& p, bool alone, const std::string& id) {
  if (drawn_as_map(t, p)) {
    Table titled = t;  // a map of the series
    return map_figure(titled, map_of(titled, p), id);
  }
  const bool bars = t.chart == Chart::bars;
  const bool small = rows(t) * p.series.size() <= 12 && bars;
  const Size size = alone ? Size{lying(t) && bars ? 640 : small ? 480 : 760, 250} : Size{360, 190};
  std::string chart = t.chart == Chart::lines ? line_chart(t, p, size)
                      : lying(t)              ? row_bars(t, p, alone ? size.width : 420)
                                              : bar_chart(t, p, size);
  if (alone) {
    chart = scroll(concat("<div class=\"", small || lying(t) ? "slim" : "broad",
                          "\" style=\"max-width:", size.width,
                          lying(t) ? "px;min-width:460px\">" : "px\">", chart, "</div>"),
                   t.title);
  }
  return concat("<figure>", caption(p, alone), chart, "</figure>");
}

bool any_interval(const Column& c) {
  for (std::size_t r = 0; r < rows(c); ++r) {
    if (!interval_cell(c, r).empty())
      return true;
  }
  return false;
}

}  // namespace

std::string figure_of(const Table& t, const std::string& id) {
  if (t.chart == Chart::heatmap)
    return map_figure(t, map_of(t), id);
  if (t.chart == Chart::flow)
    return scroll(concat("<div class=broad>", flow_chart(t, 1040), "</div>"), t.title);
  const std::vector<Panel> all = panels(t);
  std::string out = all.size() > 1 ? "<div class=panels>" : "";
  bool chances = false;
  std::string range;  // what whiskers and bands are; empty = there are none
  for (std::size_t i = 0; i < all.size(); ++i) {
    out += panel_figure(t, all[i], all.size() == 1, concat(id, "c", i));
    if (drawn_as_map(t, all[i]))
      continue;  // has a scale of its own
    for (const Column* c : all[i].series) {
      chances = chances || !c->chance.empty();
      if (any_interval(*c))
        range = range_word(*c);
    }
  }
  out += all.size() > 1 ? "</div>" : "";
  return out +
         (chances ? "<p class=\"note bychance\"><svg width=26 height=8 aria-hidden=true><path "
                    "class=chance d=\"M0 4H26\"/></svg> random routing (chance)</p>"
                  : "") +
         (range.empty()
              ? ""
              : concat("<p class=\"note bychance\"><svg width=26 height=10 aria-hidden=true><path "
                       "class=error d=\"M2 1v8M24 1v8M2 5H24\"/></svg> ",
                       range, "</p>"));
}

namespace {

bool any_chance(const Table& t) {
  for (const Column& c : t.columns) {
    if (!c.chance.empty())
      return true;
  }
  return false;
}

bool any_interval(const Table& t) {
  return std::ranges::any_of(t.columns, [](const Column& c) { return any_interval(c); });
}

}  // namespace

namespace {

// What the small numbers beside the data are.
std::string small_print(const Table& t, bool pivot) {
  const std::string inside = inside_words(t);
  if (pivot)
    return inside.empty() ? "" : concat("<p class=note>", html(inside), ".</p>");
  if (!any_chance(t))
    return "";
  return concat("<p class=note>Small grey numbers: ",
                any_interval(t) ? "[95 % interval], then " : "", "the value under random routing.",
                inside.empty() ? "" : concat(" ", html(inside), "."), "</p>");
}

}  // namespace

namespace {

// Reading, warnings, figure and data; the data folds where there is a figure.
std::string inside_of(const Table& t, const std::string& id, const RenderOptions& options) {
  std::string out;
  if (!t.reading.empty())
    out += concat("<p class=reading>", html(t.reading), "</p>\n");
  for (const std::string& w : t.warnings)
    out += concat("<p class=warning>", html(w), "</p>\n");
  const std::size_t n = rows(t);
  if (n == 0)
    return out + "<p class=note>No rows.</p>";
  const Map m = map_of(t);
  const bool figure = draws(t);
  const bool pivot = m.value && m.cells() <= pivot_limit;
  const std::string data = concat(pivot     ? pivot_table(t, m, id + "p")
                                  : m.value ? largest_table(t, m, options)
                                            : long_table(t, options),
                                  small_print(t, pivot));
  if (!figure)
    return out + data;
  return concat(out, figure_of(t, id), m.value && !pivot ? values_figure(m) : "",
                "<details><summary>Data <small>", n, n == 1 ? " row" : " rows",
                "</small></summary>", data, "</details>");
}

// What is looked up rather than read opens on a click.
bool folds(const Table& t) {
  return t.detail && rows(t) > 0 && t.chart != Chart::flow;
}

}  // namespace

std::string article(const Table& t, const std::string& id, const RenderOptions& options) {
  const std::string inside = inside_of(t, id, options);
  const bool is_overview = id == "t0";
  if (is_overview || !folds(t))
    return concat("<article id=\"", id, "\"><h3>", html(t.title), "</h3>\n", inside,
                  "</article>\n");
  return concat("<article id=\"", id, "\" class=folded><details><summary><h3>", html(t.title),
                "</h3> <small>", rows(t), " rows</small></summary>", inside,
                "</details></article>\n");
}

}  // namespace moe::drawing
