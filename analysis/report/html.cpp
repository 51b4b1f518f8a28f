// One page that needs nothing else: the first map of the report (load by layer and expert, where there is one), findings, then
// the sections and the coloured text.
#include "analysis/report/page.h"
#include "analysis/report/render.h"
#include "analysis/report/utf8.h"

namespace moe {
namespace {

using namespace drawing;

std::string head(const Report& report) {
  std::string out = concat("<header><h1>", html(report.title), "</h1>\n");
  if (!report.facts.empty()) out += "<dl class=facts>";
  for (const auto& [name, text] : report.facts)
    out += concat("<div", columns(text) > 34 ? " class=long" : "", "><dt>", html(name), "</dt><dd>", html(text), "</dd></div>");
  return out + (report.facts.empty() ? "</header>\n" : "</dl></header>\n");
}

std::string warnings(const Report& report) {
  std::string out;
  for (const std::string& w : report.warnings) out += concat("<p class=warning>", html(w), "</p>\n");
  return out;
}

std::string findings(const Report& report) {
  if (report.findings.empty()) return "";
  std::string out = "<section id=findings><h2>Findings</h2><ol class=findings>";
  for (const std::string& f : report.findings) out += concat("<li>", html(f), "</li>");
  return out + "</ol></section>\n";
}

// The first map of the report stands before the sections.
const Table* first_map(const Report& report) {
  for (const Table& t : report.tables)
    if (t.chart == Chart::heatmap && draws(t)) return &t;
  return nullptr;
}

}  // namespace

std::string render_html(const Report& report, const RenderOptions& options) {
  const Table* first = first_map(report);
  std::string nav, body;
  int number = 0;
  if (first) {
    nav += "<a href=\"#overview\">Overview</a>";
    body += concat("<section id=overview><h2>Overview</h2>", article(*first, "t0", options), "</section>\n");
  }
  if (!report.findings.empty()) nav += "<a href=\"#findings\">Findings</a>";
  body += findings(report);
  for (const Section& s : sections(report)) {
    std::string inside;
    const std::string id = concat("s", ++number);
    for (std::size_t i = 0; i < s.tables.size(); ++i)
      if (s.tables[i] != first) inside += article(*s.tables[i], concat(id, "t", i), options);
    if (inside.empty()) continue;
    if (!s.name.empty()) nav += concat("<a href=\"#", id, "\">", html(s.name), "</a>");
    body += concat("<section id=", id, ">", s.name.empty() ? "" : concat("<h2>", html(s.name), "</h2>"), inside, "</section>\n");
  }
  if (!report.samples.empty()) nav += "<a href=\"#sample\">Text</a>";
  std::string out = "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">";
  out += concat("<meta name=color-scheme content=\"light dark\"><title>", html(report.title), "</title>\n<style>", style_sheet(experts_in(report)), "</style></head>\n");
  out += concat("<body>\n", head(report), nav.empty() ? "" : concat("<nav aria-label=Sections>", nav, "</nav>\n"), "<main>\n", warnings(report), body);
  return out + concat(sample_section(report), "</main>\n<div id=tip hidden></div>\n<script>", page_script(), "</script>\n</body></html>\n");
}

}  // namespace moe
