// One page that needs nothing else. Its first screen is the answer: what was looked at, the lights,
// the first map of the report (load by layer and expert, where there is one) and the findings that
// matter most, each with a way to its section. Then the sections, the coloured text, what the words
// mean, and where it all comes from.
#include <map>
#include <set>

#include "analysis/report/page.h"
#include "analysis/report/ranking.h"
#include "analysis/report/render.h"
#include "analysis/report/utf8.h"

namespace moe {
namespace {

using namespace drawing;

constexpr std::size_t first_findings = 8;

// Facts beside the title, or those too long for it; with a subject all stand at the end.
std::string facts(const Report& report, bool in_head) {
  std::string out;
  for (const auto& [name, text] : report.facts) {
    const bool is_short = short_fact(text);
    if ((report.subject.empty() && is_short) == in_head) {
      out += concat("<div", is_short ? "" : " class=long", "><dt>", html(name), "</dt><dd>",
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

// The first map of the report stands before the sections.
const Table* first_map(const Report& report) {
  for (const Table& t : report.tables) {
    if (t.chart == Chart::heatmap && draws(t))
      return &t;
  }
  return nullptr;
}

// Where a table stands on the page.
struct Place {
  std::string id, section;
};
using Places = std::map<std::string, Place>;  // by table id

Places places_of(const Report& report, const Table* first) {
  Places out;
  int number = 0;
  for (const Section& s : sections(report)) {
    ++number;
    for (std::size_t i = 0; i < s.tables.size(); ++i) {
      const Table& t = *s.tables[i];
      out.try_emplace(
          t.id, &t == first ? Place{"t0", "Overview"} : Place{concat("s", number, "t", i), s.name});
    }
  }
  return out;
}

std::string link_of(const Finding& f, const Places& places) {
  for (const Quote& q : f.cells) {
    if (const auto at = places.find(q.table); at != places.end() && !at->second.section.empty()) {
      return concat(" <a class=more href=\"#", at->second.id, "\">", html(at->second.section),
                    "</a>");
    }
  }
  return "";
}

std::string item_of(const Finding& f, const Report& report, const Places& places) {
  const std::string word = word_of(f.priority);
  const std::string lamp =
      report.tiles.empty() ? "" : concat("<span class=\"lamp ", word, "\">", word, "</span> ");
  return concat("<li><span>", lamp, html(f.text), link_of(f, places), "</span>");
}

std::string findings(const Report& report, const Places& places) {
  const std::vector<const Finding*> all = ranked_findings(report);
  if (all.empty())
    return "";
  std::string out = concat("<section id=findings><h2>Findings",
                           report.tiles.empty() ? "" : ", worst first", "</h2><ol class=findings>");
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i == first_findings) {
      out += concat("</ol><details class=rest><summary>", all.size() - i, " more</summary>",
                    "<ol class=\"findings rest\">");
    }
    out += item_of(*all[i], report, places);
  }
  return out + (all.size() > first_findings ? "</ol></details>" : "</ol>") + "</section>\n";
}

std::string tiles(const Report& report, const Places& places) {
  if (report.tiles.empty())
    return "";
  std::string out = "<div class=tiles>";
  for (const Tile& t : report.tiles) {
    const auto at = places.find(t.table);
    out += tile(t, at == places.end() ? "" : at->second.id);
  }
  return out + "</div>\n";
}

struct Page {  // links to its parts, and the parts
  std::string nav, body;
  void link(const std::string& id, const std::string& name) {
    nav += concat("<a href=\"#", id, "\">", html(name), "</a>");
  }
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
      page.link(id, s.name);
    page.body +=
        concat("<section id=", id, ">", s.name.empty() ? "" : concat("<h2>", html(s.name), "</h2>"),
               inside, "</section>\n");
  }
}

// What the headings of all tables mean, each once.
std::string glossary(const Report& report) {
  std::set<std::string> told;
  std::string out;
  for (const Table& t : report.tables) {
    for (const Column& c : t.columns) {
      const std::string entry =
          concat("<div><dt>", html(heading(c)), "</dt><dd>", html(c.meaning),
                 c.metric.empty() ? "" : " <code>" + html(c.metric) + "</code>", "</dd></div>");
      if (!c.meaning.empty() && told.insert(entry).second)
        out += entry;
    }
  }
  return out.empty() ? "" : concat("<dl class=legend>", out, "</dl>");
}

void put_overview(Page& page, const Report& report, const Table* first, const Places& places,
                  const RenderOptions& options) {
  if (first || !report.tiles.empty()) {
    page.link("overview", "Overview");
    page.body += concat("<section id=overview><h2>Overview</h2>", tiles(report, places),
                        first ? article(*first, "t0", options) : "", "</section>\n");
  }
  if (!report.findings.empty())
    page.link("findings", "Findings");
  page.body += findings(report, places);
  if (const std::size_t warned = report.warnings.size()) {
    page.nav += concat("<a class=warned href=\"#warnings\">", warned,
                       warned == 1 ? " warning" : " warnings", "</a>");
  }
  page.body += warnings(report);
}

Page page_of(const Report& report, const RenderOptions& options) {
  Page page;
  const Table* first = first_map(report);
  put_overview(page, report, first, places_of(report, first), options);
  put_sections(page, report, first, options);
  page.body += sample_section(report);
  if (!report.samples.empty())
    page.link("sample", "Text");
  if (const std::string words = glossary(report); !words.empty()) {
    page.link("words", "Words");
    page.body += concat(
        "<section id=words><h2>What the words mean</h2><details><summary>All headings of "
        "this page</summary>",
        words, "</details></section>\n");
  }
  if (const std::string made = facts(report, false); !made.empty()) {
    page.link("made", "Origin");
    page.body += concat("<section id=made><h2>Origin</h2>", made, "</section>\n");
  }
  return page;
}

}  // namespace

std::string render_html(const Report& report, const RenderOptions& options) {
  const Page page = page_of(report, options);
  const std::string subject =
      report.subject.empty() ? "" : concat("<p class=subject>", html(report.subject), "</p>\n");
  const std::string head = concat(
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
      "content=\"width=device-width,initial-scale=1\">",
      "<meta name=color-scheme content=\"light dark\"><title>", html(report.title),
      "</title>\n<style>", style_sheet(experts_in(report)), "</style></head>\n");
  return concat(head, "<body>\n<header><h1>", html(report.title), "</h1>\n", subject,
                facts(report, true), "</header>\n",
                page.nav.empty() ? "" : concat("<nav aria-label=Sections>", page.nav, "</nav>\n"),
                "<main>\n", page.body, "</main>\n<div id=tip hidden></div>\n<script>",
                page_script(), "</script>\n</body></html>\n");
}

}  // namespace moe
