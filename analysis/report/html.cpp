// One page that needs nothing else: the first map of the report (load by layer and expert, where
// there is one), warnings (the bar that stays in view counts them), findings, then the sections,
// the coloured text, and at the end the facts too long for the head.
#include "analysis/report/page.h"
#include "analysis/report/render.h"
#include "analysis/report/utf8.h"

namespace moe {
namespace {

using namespace drawing;

std::string facts(const Report& report, bool of_one_line) {
  std::string out;
  for (const auto& [name, text] : report.facts) {
    if ((columns(text) <= 34) == of_one_line) {
      out += concat("<div", of_one_line ? "" : " class=long", "><dt>", html(name), "</dt><dd>",
                    html(text), "</dd></div>");
    }
  }
  return out.empty() ? "" : concat("<dl class=facts>", out, "</dl>");
}

std::string warnings(const Report& report) {
  if (report.warnings.empty())
    return "";
  std::string out = "<section id=warnings><h2>Warnings</h2>\n";
  for (const std::string& w : report.warnings)
    out += concat("<p class=warning>", html(w), "</p>\n");
  return out + "</section>\n";
}

std::string findings(const Report& report) {
  if (report.findings.empty())
    return "";
  std::string out = "<section id=findings><h2>Findings</h2><ol class=findings>";
  for (const Finding& f : report.findings)
    out += concat("<li>", html(f.text), "</li>");
  return out + "</ol></section>\n";
}

// The first map of the report stands before the sections.
const Table* first_map(const Report& report) {
  for (const Table& t : report.tables) {
    if (t.chart == Chart::heatmap && draws(t))
      return &t;
  }
  return nullptr;
}

}  // namespace

namespace {

struct Page {  // links to its parts, and the parts
  std::string nav, body;
};

void put_sections(Page& page, const Report& report, const Table* first,
                  const RenderOptions& options) {
  int number = 0;
  for (const Section& s : sections(report)) {
    std::string inside;
    const std::string id = concat("s", ++number);
    for (std::size_t i = 0; i < s.tables.size(); ++i) {
      if (s.tables[i] != first)
        inside += article(*s.tables[i], concat(id, "t", i), options);
    }
    if (inside.empty())
      continue;
    if (!s.name.empty())
      page.nav += concat("<a href=\"#", id, "\">", html(s.name), "</a>");
    page.body +=
        concat("<section id=", id, ">", s.name.empty() ? "" : concat("<h2>", html(s.name), "</h2>"),
               inside, "</section>\n");
  }
}

Page page_of(const Report& report, const RenderOptions& options) {
  Page page;
  const Table* first = first_map(report);
  if (first) {
    page.nav += "<a href=\"#overview\">Overview</a>";
    page.body += concat("<section id=overview><h2>Overview</h2>", article(*first, "t0", options),
                        "</section>\n");
  }
  if (const std::size_t warned = report.warnings.size()) {
    page.nav += concat("<a class=warned href=\"#warnings\">", warned,
                       warned == 1 ? " warning" : " warnings", "</a>");
  }
  page.body += warnings(report);
  if (!report.findings.empty())
    page.nav += "<a href=\"#findings\">Findings</a>";
  page.body += findings(report);
  put_sections(page, report, first, options);
  page.body += sample_section(report);
  if (!report.samples.empty())
    page.nav += "<a href=\"#sample\">Text</a>";
  if (const std::string made = facts(report, false); !made.empty()) {
    page.nav += "<a href=\"#made\">Origin</a>";
    page.body += concat("<section id=made><h2>Origin</h2>", made, "</section>\n");
  }
  return page;
}

}  // namespace

std::string render_html(const Report& report, const RenderOptions& options) {
  const Page page = page_of(report, options);
  const std::string head = concat(
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
      "content=\"width=device-width,initial-scale=1\">",
      "<meta name=color-scheme content=\"light dark\"><title>", html(report.title),
      "</title>\n<style>", style_sheet(experts_in(report)), "</style></head>\n");
  return concat(head, "<body>\n<header><h1>", html(report.title), "</h1>\n", facts(report, true),
                "</header>\n",
                page.nav.empty() ? "" : concat("<nav aria-label=Sections>", page.nav, "</nav>\n"),
                "<main>\n", page.body, "</main>\n<div id=tip hidden></div>\n<script>",
                page_script(), "</script>\n</body></html>\n");
}

}  // namespace moe
