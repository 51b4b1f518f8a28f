// Every renderer against its golden file and against what its readers demand. MOE_UPDATE_GOLDEN=1
// writes the golden files anew and fails, so that a run that wrote them cannot pass for one that
// checked them.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include <catch2/catch.hpp>

#include "analysis/report/cells.h"
#include "analysis/report/render.h"
#include "lib/core/error.h"
#include "tests/report/fixture.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void spit(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  REQUIRE(out.good());
}

std::string render(std::string_view format, const Report& r, RenderOptions o = {}) {
  return renderers().at(format).make(r, o);
}

// Runs a Python program over a rendered report; its exit status.
int python(const std::string& program, const std::string& text) {
  const fs::path folder =
      fs::temp_directory_path() /
      ("moe_render_" + std::to_string(std::hash<std::string>{}(program + text)));
  fs::create_directories(folder);
  spit(folder / "program.py", program);
  spit(folder / "input", text);
  const int status = std::system(
      ("python3 " + (folder / "program.py").string() + " " + (folder / "input").string()).c_str());
  fs::remove_all(folder);
  return status;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != text.npos; at = text.find(what, at + 1))
    ++n;
  return n;
}

}  // namespace

TEST_CASE("every renderer writes its golden file") {
  for (const auto& entry : renderers().entries()) {
    const std::string got = render(entry.name, test::awkward());
    const fs::path path =
        fs::path(MOE_SOURCE_DIR) / "tests/report/golden" / ("awkward." + std::string(entry.name));
    INFO(path);
    if (std::getenv("MOE_UPDATE_GOLDEN")) {
      spit(path, got);
      FAIL_CHECK("wrote it anew");
    } else {
      REQUIRE(fs::exists(path));
      CHECK(got == slurp(path));
    }
    CHECK(got == render(entry.name, test::awkward()));
  }
}

TEST_CASE("every renderer draws an empty report, and says nothing of nan") {
  const std::regex nan("\\bnan\\b|nan%|-nan", std::regex::icase);
  for (const auto& entry : renderers().entries()) {
    INFO(entry.name);
    // which is rows and nothing else
    CHECK(render(entry.name, Report{}).empty() == (entry.name == "jsonl"));
    for (const Report& r : {test::awkward(), test::realistic()}) {
      std::string got = render(entry.name, r);
      if (entry.name == "html")
        got = got.substr(0, got.find("<script>\n'use strict'"));
      CHECK_FALSE(std::regex_search(got, nan));
    }
  }
}

TEST_CASE("a line of JSON keeps every column, those of one name too") {
  Report r;
  r.tables.push_back({.id = "t"});
  r.tables[0].columns = {
      {.name = "layer", .cells = std::vector<double>{3}},
      {.name = "largest", .cells = std::vector<double>{1}, .metric = "up_cosine"},
      {.name = "largest", .cells = std::vector<double>{2}, .metric = "cka"},
      {.name = "largest", .cells = std::vector<double>{4}, .metric = "cka"}};
  const auto row = nlohmann::json::parse(render("jsonl", r));
  CHECK(row.at("layer") == 3);
  CHECK(row.at("largest up_cosine") == 1);
  CHECK(row.at("largest cka") == 2);
  CHECK(row.at("largest cka 2") == 4);
}

TEST_CASE("an ending asks for a format") {
  CHECK(format_of("a/b.html") == "html");
  CHECK(format_of("b.txt") == "text");
  CHECK(format_of("b.csv") == "csv");
  CHECK(format_of("a.d/b").empty());
  CHECK(format_of("b.h5").empty());
  CHECK_THROWS_AS(renderers().at("htlm"), Error);
}

TEST_CASE("json is strict and whole") {
  const std::string check = R"(
import json, sys
def bad(c): raise ValueError(c)
d = json.load(open(sys.argv[1], encoding='utf-8'), parse_constant=bad)
assert d['schema'] == 'moe-report/1'
t = {t['id']: t for t in d['tables']}
c = {c['name']: c for c in t['odd']['columns']}
assert c['ratio']['values'] == [None, 'inf', '-inf'] and c['ratio']['chance'] == [0.5, None, 'inf']
assert c['count']['values'] == [-3, 1234567, 0] and c['tiny']['values'][0] == 1e-7
assert t['hollow']['rows'] == 0 and t['bare']['columns'] == []
s = d['samples'][0]
assert bytes.fromhex(''.join(s['piece_hex'])).startswith(b'a<\xe4\xb8\xad\xe4b')
assert s['expert'][1][8] == -1
)";
  CHECK(python(check, render("json", test::awkward())) == 0);
  CHECK(python("import json, sys\nd = json.load(open(sys.argv[1], encoding='utf-8'))\nassert "
               "d['tables'] == [] and d['samples'] == []\n",
               render("json", Report{})) == 0);
}

TEST_CASE("csv has every cell of every table once") {
  const std::string check = R"(
import csv, sys
r = list(csv.DictReader(open(sys.argv[1], encoding='utf-8', newline='')))
names = 'table,row,column,value,unit,chance,metric,low,high,chance_spread,inside_chance'
assert list(r[0]) == names.split(',')
assert all(None not in x and None not in x.values() for x in r)
g = {(x['table'], int(x['row']), x['column']): x for x in r}
assert len(g) == len(r) == 3 + 12 + 12 + 9, len(r)
assert g['odd', 1, 'name']['value'] == 'a|b,"c"\nd'
assert g['report', 0, 'file']['value'] == 'a,b"c|d.h5'
assert g['odd', 0, 'ratio']['value'] == ''
assert g['odd', 1, 'ratio']['value'] == 'inf'
assert g['odd', 2, 'ratio']['value'] == '-inf'
assert float(g['odd', 0, 'tiny']['value']) == 1e-7
assert g['map', 3, 'share']['chance'] == '0.5'
assert g['odd', 0, 'ratio']['unit'] == 'x'
)";
  CHECK(python(check, render("csv", test::awkward())) == 0);
  // a detail table is whole
  CHECK(count(render("csv", test::realistic()), "\ncoactivation,") == 4 * 16 * 16 * 4);
}

TEST_CASE("html escapes, points nowhere, and closes what it opens") {
  const std::string got = render("html", test::awkward());
  const std::string real = render("html", test::realistic());
  CHECK(count(got, "<script>") == 1);  // our own
  CHECK(count(got, "<b>") == 0);
  for (const std::string& page : {got, real}) {
    CHECK(count(page, "http://") == 0);
    CHECK(count(page, "https://") == 0);
    CHECK(count(page, "<svg") == count(page, "</svg>"));
    CHECK(count(page, "<table") == count(page, "</table>"));
    CHECK(count(page, "<article") == count(page, "</article>"));
    CHECK(count(page, "<section") == count(page, "</section>"));
  }
  CHECK(count(real, "class=tokens") == 3);
  CHECK(real.find(">春</span>") != std::string::npos);  // three byte tokens, one character
  CHECK(real.find("data-n=3 title=\"experts ") != std::string::npos);
  CHECK(real.find("id=overview") < real.find("id=s1"));
  const std::string ids = R"py(
import re, sys
from html.parser import HTMLParser
blocks = '''div section article details figure dl ol p span svg table main'''.split()
class P(HTMLParser):
    ids, stack = set(), []
    def handle_starttag(self, tag, attrs):
        i = dict(attrs).get('id')
        assert i is None or i not in self.ids, i
        self.ids.add(i)
        if tag in blocks: self.stack.append(tag)
    def handle_endtag(self, tag):
        if tag in blocks:
            assert self.stack and self.stack.pop() == tag, (tag, self.getpos())
p = P()
text = open(sys.argv[1], encoding='utf-8').read()
p.feed(text)
assert not p.stack, p.stack
for a in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)|data-map="([^"]*)"', text):
    assert ''.join(a) in p.ids, a
)py";
  CHECK(python(ids, got) == 0);
  CHECK(python(ids, real) == 0);
  CHECK(python(ids, render("html", test::large(12, 80))) == 0);
}

TEST_CASE("pictures of a sample stand in their grid, beside the text behind them") {
  Report r = test::realistic();
  TokenSample s{"shapes", {}, {}};
  s.piece = {"a", "▫", "▫", "▫", "▫", "▫", "▫", "red", "?", "▫", "▫"};
  s.expert = {{0, 1, 2, 3, 4, 5, -1, 7, 0, 1, 2}, {1, 1, 1, 1, 1, 1, -1, 2, 2, 3, 3}};
  s.pictures = {{1, 2, 3, "image"}, {9, 1, 2, "au<dio"}};
  r.samples = {s};
  const std::string page = render("html", r);
  CHECK(count(page, "<figure class=picture>") == 2);
  CHECK(count(page, "class=pictured") == 2);
  CHECK(page.find("repeat(3,1fr)") != page.npos);
  CHECK(page.find("image, 2 × 3</figcaption>") != page.npos);
  CHECK(page.find("au&lt;dio, 1 × 2</figcaption>") != page.npos);
  // every part of the sample has the codes of its own tokens, a layer after the other
  CHECK(page.find("data-layers=\"00 01\"><span class=\"e0\"") != page.npos);
  CHECK(page.find("data-layers=\"0102030405-- 0101010101--\"><span class=\"e1\" title=\"expert "
                  "1\"></span>") != page.npos);
  CHECK(page.find("data-layers=\"0700 0202\">") != page.npos);
  CHECK(count(render("html", test::realistic()), "class=picture") == 0);
  CHECK(count(render("html", test::realistic()), ".picture") == 0);
  const std::string colour = render("text", r, {60, true, false, 0});
  CHECK(colour.find("\x1b[0m· ") != colour.npos);  // the end of the second row
  CHECK(render("json", r).find("\"pictures\":[{\"first\":1,\"rows\":2,\"columns\":3,"
                               "\"modality\":\"image\"}") != std::string::npos);
  CHECK(render("json", test::realistic()).find("\"pictures\"") == std::string::npos);
}

TEST_CASE(
    "intervals stand behind values, chance inside them is marked, lights are words and colour") {
  const Report r = test::realistic();
  const std::string text = render("text", r, {120, false, false, 0});
  const std::string ascii = render("text", r, {120, false, true, 0});
  const std::string colour = render("text", r, {120, true, false, 0});
  CHECK(text.find("0.540 [0.480, 0.600] (chance 0.021)") != text.npos);
  CHECK(text.find("0.620 [0.040, 0.700] (≈ chance 0.050)") != text.npos);
  CHECK(text.find("the 95 % interval holds the value of random routing") != text.npos);
  CHECK(ascii.find("(~chance 0.050)") != ascii.npos);
  CHECK(colour.find("\x1b[1;31mred") != colour.npos);
  CHECK(colour.find("\x1b[2mgrey") != colour.npos);
  CHECK(render("md", r).find("0.620 \\[0.040, 0.700\\] (≈ chance 0.050)") != std::string::npos);
  CHECK(render("csv", r).find("lights,1,worst,0.62,,0.05,,0.04,0.7,,1\n") != std::string::npos);
  CHECK(render("json", r).find("\"low\":[0.48,0.04,0.06,0.7]") != std::string::npos);
  const std::string page = render("html", r);
  CHECK(page.find("<span class=\"lamp red\">red</span>") != page.npos);
  CHECK(page.find("<span class=\"lamp grey\">grey</span>") != page.npos);
  CHECK(page.find("<td class=near>0.620<small> [0.040, 0.700]</small><small class=by> ≈ "
                  "0.050</small>") != page.npos);
  CHECK(page.find("id=overview") < page.find("id=findings"));
}

TEST_CASE(
    "the page opens with the map, counts its warnings in the bar, and ends with the facts too long "
    "for its head") {
  const std::string page = render("html", test::awkward());
  const std::string real = render("html", test::realistic());
  CHECK(page.find("<a class=warned href=\"#warnings\">1 warning</a>") < page.find("id=overview"));
  CHECK(page.find("id=overview") < page.find("id=findings"));
  CHECK(page.find("id=findings") < page.find("id=warnings"));
  CHECK(page.find("id=warnings") < page.find("<p class=warning>Only 3 tokens."));
  CHECK(page.find("id=made") == page.npos);
  CHECK(count(real, "#warnings") == 0);
  // with a subject in the head, all facts stand at the end
  CHECK(real.find("<p class=subject>runs/a, 60,000 tokens") < real.find("id=overview"));
  CHECK(real.find("<dt>seed</dt>") > real.find("id=made"));
  CHECK(real.find("id=sample") < real.find("id=made"));
  CHECK(real.find("id=made") < real.find("<dt>data</dt>"));
}

TEST_CASE("what is inside chance carries the same mark in every format") {
  Column c{"figure",  "",    "", std::vector<double>{0.11, 0.12, 0.13, 0.14, 0.15, 0.16},
           "load_cv", {0.1}, 2};
  c.low = {0.05, 0.11, NAN, NAN, NAN, NAN};
  c.high = {0.2, 0.13, NAN, NAN, NAN, NAN};
  // an interval is asked first: row 0 is inside, row 1 is not; row 3 is 2.1 spreads off
  c.chance_spread = {1e-9, 1, 0.016, 0.019, 0.026, NAN};
  const std::vector<bool> inside{true, false, true, false, true, false};
  for (std::size_t r = 0; r < inside.size(); ++r)
    CHECK(drawing::inside_chance(c, r) == inside[r]);
  const Column from{"from", "", "", std::vector<std::int64_t>(6, 0), "", {}};
  const Column layer{"layer", "", "", std::vector<std::int64_t>{0, 1, 2, 3, 4, 5}, "", {}};
  const auto drawn = [&](const char* format, Chart chart) {
    std::vector<Column> columns{layer, c};
    if (chart == Chart::heatmap)
      columns.insert(columns.begin(), from);
    return render(format,
                  {"R", {}, {}, {}, {{"t", "T", "", chart, columns, "", false, {}}}, {}, {}},
                  {200, false, false, 0});
  };
  for (const Chart chart : {Chart::none, Chart::bars, Chart::lines, Chart::heatmap}) {
    INFO(int(chart));
    const std::string page = drawn("html", chart);
    CHECK(count(drawn("text", chart), "(≈ chance 0.10)") == 3);
    CHECK(count(page, "(≈ chance 0.10)</title>") == (chart == Chart::none ? 0 : 3));
    CHECK(count(page, "<small class=by> ≈ 0.10</small>") == (chart == Chart::heatmap ? 0 : 3));
    CHECK(count(page, " ≈<td>") == (chart == Chart::heatmap ? 3 : 0));
    CHECK(count(drawn("csv", chart), ",1\n") == 3);
    CHECK(drawn("json", chart).find("\"inside_chance\":[true,false,true,false,true,false]") !=
          std::string::npos);
    for (const char* format : {"text", "md", "html"}) {
      CHECK(drawn(format, chart)
                .find("without an interval, the figure lies within two standard deviations") !=
            std::string::npos);
    }
  }
  CHECK(count(drawn("md", Chart::lines), "(≈ chance 0.10)") == 3);
  CHECK(count(drawn("md", Chart::heatmap), " ≈ |") == 3);
  CHECK(drawn("text", Chart::heatmap).find("3 of 6 values are inside chance") != std::string::npos);
  // then nothing is said, and chance stands beside
  c.chance_spread.clear();
  c.low.clear();
  c.high.clear();
  CHECK(count(drawn("text", Chart::none), "(chance 0.10)") == 6);
  for (const char* format : {"text", "md", "html"})
    CHECK(count(drawn(format, Chart::none), "≈ ") == 0);
}

TEST_CASE("charts draw intervals as whiskers with a title, and only where there is one") {
  const std::string page = render("html", test::awkward());
  // lying bars 2, points of a line without neighbours 2, a key below each chart that has them
  CHECK(count(page, "<path class=error d=") == 6);
  CHECK(count(page, ", 95 % interval [") == 8);  // of marks and of their whiskers
  // neighbours are joined to a band
  CHECK(count(page, "class=\"band") == 0);
  CHECK(count(render("html", test::realistic()), "<path class=\"band s0\"") == 1);
  CHECK(count(page, "95 % interval [0.00, 0.02], holds chance 0.01</title>") == 1);
  // chance 0.2 lies above it
  CHECK(count(page, "a 0.100, 95 % interval [0.050, 0.180]</title>") == 1);
  Report bare = test::awkward();
  for (Table& t : bare.tables) {
    for (Column& c : t.columns) {
      c.low.clear();
      c.high.clear();
    }
  }
  CHECK(count(render("html", bare), "<path class=error d=") == 0);
}

TEST_CASE("html of 64 layers and 256 experts stays below 2 MB") {
  const std::string got = render("html", test::large(64, 256));
  CHECK(got.size() < 2'000'000);
  CHECK(got.find("data:image/png;base64,") != std::string::npos);
}

TEST_CASE(
    "a map too large for the page shows how its values are spread, and the largest of them first") {
  Table t{"pairs",
          "Pairs",
          "",
          Chart::heatmap,
          {{"from", "", "", std::vector<std::int64_t>{}, "", {}},
           {"to", "", "", std::vector<std::int64_t>{}, "", {}},
           {"share", "", "", std::vector<double>{}, "x", {}}},
          "",
          true,
          {}};
  const std::int64_t n = 150;  // 22,500 cells; the diagonal is larger than any other
  for (std::int64_t i = 0; i < n * n; ++i) {
    std::get<0>(t.columns[0].cells).push_back(i / n);
    std::get<0>(t.columns[1].cells).push_back(i % n);
    std::get<1>(t.columns[2].cells).push_back(i / n == i % n ? 1e6 : double(i * 7919 % 22501));
  }
  const Report r{"large", {}, {}, {}, {t}, {}, {}};
  const std::string page = render("html", r);
  CHECK(page.find("How many of the 22,350 values are how large") != page.npos);
  CHECK(page.find("The 200 largest of 22500") != page.npos);
  const auto row = [&](const char* v) {
    return page.find(concat("<td>", v));
  };
  CHECK(row("22,499") < row("22,498"));
  CHECK(row("22,498") < row("22,497"));
  CHECK(row("22,497") != page.npos);
  CHECK(row("1,000,000") == page.npos);
}

// test_report '[.look]' writes pages to look at into $MOE_LOOK.
TEST_CASE("pages to look at", "[.look]") {
  const char* folder = std::getenv("MOE_LOOK");
  REQUIRE(folder);
  for (const auto& entry : renderers().entries()) {
    spit(fs::path(folder) / ("realistic." + std::string(entry.name)),
         render(entry.name, test::realistic(), {100, false, false, 0}));
  }
  spit(fs::path(folder) / "large.html", render("html", test::large(64, 256)));
  spit(fs::path(folder) / "middle.html", render("html", test::large(24, 64)));
  spit(fs::path(folder) / "awkward.html", render("html", test::awkward()));
}

TEST_CASE("a flow draws a ribbon for each share, those that independent layers give faded") {
  Column lift{"lift", "x", "", std::vector<double>{2, 1.01, 0.4, 0}, "", {1, 1, 1, 1}};
  lift.chance_spread = {0.05, 0.05, 0.05, 0.05};
  const Table t{"flow",
                "Where tokens go",
                "",
                Chart::flow,
                {{"layers", "", "", std::vector<std::string>(4, "0→1"), "", {}},
                 {"from", "", "", std::vector<std::string>{"0", "0", "1", "1"}, "", {}},
                 {"to", "", "", std::vector<std::string>{"0", "1", "0", "others"}, "", {}},
                 {"share", "share", "", std::vector<double>{0.5, 0.3, 0.2, 0}, "", {}},
                 lift},
                "paths",
                false,
                {}};
  Report r;
  r.tables = {t};
  const std::string page = render("html", r);
  const auto count = [&](const std::string& what) {
    std::size_t n = 0;
    for (auto at = page.find(what); at != page.npos; at = page.find(what, at + 1))
      ++n;
    return n;
  };
  CHECK(count("<path class=\"ribbon s0\"") == 1);
  CHECK(count("<path class=\"ribbon s0 faded\"") == 1);
  CHECK(count("<path class=\"ribbon s1 faded\"") == 1);  // and none for a share of 0
  CHECK(page.find("0→1: 0 to 0, 0.500 of the tokens, 2.000x of what independent layers give") !=
        page.npos);
  CHECK(count("layer 0, 0: 0.8000 of the tokens") == 1);
}
