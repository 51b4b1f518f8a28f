// The terminal renderer at any width, and the small parts that all renderers stand on.
#include <set>
#include <sstream>

#include <catch2/catch.hpp>

#include "analysis/report/cells.h"
#include "analysis/report/colour.h"
#include "analysis/report/png.h"
#include "analysis/report/render.h"
#include "analysis/report/utf8.h"
#include "tests/report/fixture.h"

using namespace moe;
using namespace moe::drawing;

namespace {

std::string text(const Report& r, RenderOptions o) {
  return renderers().at("text").make(r, o);
}

std::string plain(const std::string& s) {  // without the colours
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\x1b')
      i = s.find('m', i);
    else
      out += s[i];
  }
  return out;
}

int widest(const std::string& s) {
  int most = 0;
  std::istringstream in(plain(s));
  for (std::string line; std::getline(in, line);)
    most = std::max(most, columns(line));
  return most;
}

}  // namespace

TEST_CASE("text is never wider than the terminal") {
  for (const int width : {20, 27, 40, 80, 132, 200}) {
    for (const bool colour : {false, true}) {
      for (const bool ascii : {false, true}) {
        for (const Report& r : {test::realistic(), test::awkward(), test::large(40, 72)}) {
          INFO(width << " colour " << colour << " ascii " << ascii);
          const std::string got = text(r, {width, colour, ascii, 0});
          CHECK(widest(got) <= width);
          CHECK((got.find('\x1b') != got.npos) == colour);
        }
      }
    }
  }
}

TEST_CASE("text tells the findings first, chance beside the value, and what it cut") {
  const std::string wide = text(test::realistic(), {200, false, false, 0});
  CHECK(wide.find("Findings") < wide.find("balance"));
  CHECK(wide.find("0.412 (chance 0.125)") != wide.npos);
  CHECK(wide.find("2.0e-05 (chance 0.125)") != wide.npos);
  CHECK(wide.find("1024 values: -o report.csv has all") != wide.npos);
  for (const int width : {20, 80}) {  // nothing is dropped when it is narrow: it is wrapped
    const std::string narrow = text(test::realistic(), {width, false, false, 0});
    for (const char* heading : {"Gini", "max/min", "dead experts", "entropy"})
      CHECK(narrow.find(heading) != narrow.npos);
  }
  Report cut;
  cut.tables = {{"t",
                 "Long",
                 "",
                 Chart::none,
                 {{"x", "", "", std::vector<std::int64_t>(100, 1), "", {}, 3}},
                 "",
                 true,
                 {}}};
  CHECK(text(cut, {80, false, false, 0}).find("88 more rows: -o report.csv has all") !=
        std::string::npos);
  CHECK(text(cut, {80, false, false, 5}).find("95 more rows") != std::string::npos);
  Report wordy;
  wordy.tables = {{"t",
                   "Words",
                   "",
                   Chart::none,
                   {{"x", "", "", std::vector<std::int64_t>{1, 2}, "", {}, 3},
                    {"why",
                     "",
                     "",
                     std::vector<std::string>{"because long words go on below", "no"},
                     "",
                     {},
                     3}},
                   "",
                   false,
                   {}}};
  CHECK(text(wordy, {30, false, false, 0})
            .find("  x  why\n  1  because long\n     words go on\n     below\n  2  no\n") !=
        std::string::npos);
}

TEST_CASE("ascii text of ascii names is ascii") {
  const std::string got = text(test::large(8, 16), {80, false, true, 0});
  CHECK(std::all_of(got.begin(), got.end(),
                    [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
}

TEST_CASE("names cannot drive the terminal") {
  const std::string got = text(test::awkward(), {80, false, false, 0});
  for (const char c : got)
    CHECK((c == '\n' || static_cast<unsigned char>(c) >= 0x20));
}

TEST_CASE("numbers read as people write them") {
  CHECK(number(0.4104, 2) == "0.41");
  CHECK(number(NAN, 3) == "–");
  CHECK(number(INFINITY, 3) == "∞");
  CHECK(number(-INFINITY, 3, true) == "-inf");
  CHECK(number(0.0, 3) == "0.000");
  CHECK(number(-0.0, 3) == "0.000");
  CHECK(number(0.00001, 3) == "1.0e-05");
  CHECK(number(4e-88, 4) == "<1e-12");
  CHECK(number(-4e-88, 4) == ">-1e-12");
  CHECK(number(1234567.25, 1) == "1,234,567.2");
  CHECK(number(1943, 4) == "1,943");
  CHECK(number(999, 1) == "999.0");
  CHECK(number(-12345, 0) == "-12,345");
}

TEST_CASE("axes end on round numbers and hold what they were given") {
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{
           {0, 0.37}, {0, 0}, {-0.4, 1}, {3, 3}, {0, 1e-9}, {0, 7.3e8}}) {
    const Axis a = axis(low, high, 4);
    CHECK(a.low <= low);
    CHECK(a.high >= high);
    CHECK(a.ticks.size() >= 2);
    CHECK(a.ticks.size() <= 9);
  }
}

TEST_CASE("ticks are round numbers where an axis crosses zero or hardly rises") {
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{
           {-0.6, 0.4}, {-0.3, 0.3}, {-7e-3, 2e-3}, {-1e5, 3e5}, {1.0 / 3, 1.0 / 3 + 1e-16}}) {
    const Axis a = axis(low, high, 4);
    CAPTURE(low, high, a.ticks);
    CHECK(a.low <= low);
    CHECK(a.high >= high);
    std::set<std::string> words;
    for (const double t : a.ticks) {
      words.insert(short_number(t));
      CHECK((t == 0 || std::abs(t) > 0.01 * (a.high - a.low)));
    }
    CHECK(words.size() == a.ticks.size());
  }
}

TEST_CASE("a series of zeros takes no scale from a chance that is hardly more") {
  Column c{.name = "dead share", .unit = "share", .metric = "load_dead_fraction", .digits = 4};
  c.cells = std::vector<double>{0, 0, 0};
  c.chance = {1e-17, 2e-13, 1.6e-10};
  CHECK(axis_of({{&c}}, true).high == 1);
  c.chance = {0.02, 0.02, 0.02};
  CHECK(axis_of({{&c}}, true).high == Approx(0.02));
  c.cells = std::vector<double>{0, 1e-6, 4e-6};  // small, and what the chart is about
  c.chance = {};
  CHECK(axis_of({{&c}}, true).high == Approx(4e-6));
}

TEST_CASE("bytes become whole characters") {
  const std::vector<Piece> p =
      whole_characters({"a", "\xE4", "\xB8", "\xAD", "\xE4", "b", "\xB8", "\xE4\xB8", "\xAD.", ""});
  REQUIRE(p.size() == 7);
  CHECK(p[1].text == "中");
  CHECK(p[1].count == 3);
  CHECK(p[2].count == 1);  // cut off by b
  CHECK(p[4].text == "\xB8");
  CHECK(p[5].text == "中.");
  CHECK(clean("a\xE4") == "a\xEF\xBF\xBD");
  CHECK(clean("\xED\xA0\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate
  CHECK(clean("\x1b[2J") == "␛[2J");
  CHECK(columns("中a") == 3);
  CHECK(clip("abcdef", 4, false) == "abc…");
  for (const std::string& line : wrap("一二三四五 abcdefghij kl", 5))
    CHECK(columns(line) <= 5);
}

TEST_CASE("colours rise evenly and the experts' stay apart") {
  double last = -1;
  for (int i = 0; i <= 20; ++i) {
    const double l = luminance(sequential(i / 20.0));
    CHECK(l > last);
    last = l;
  }
  for (const int experts : {2, 8, 16, 64}) {
    const Backgrounds b = expert_backgrounds(experts);
    REQUIRE(int(b.light.size()) == experts);
    for (int i = 0; i < experts; ++i) {
      CHECK(luminance(b.light[i]) > 0.5);  // dark text stands on it
      CHECK(luminance(b.dark[i]) < 0.5);
      for (int j = 0; j < i; ++j) {
        CHECK(b.light[i] != b.light[j]);
        CHECK(b.dark[i] != b.dark[j]);
      }
    }
  }
}

TEST_CASE("a map knows its axes, its span and its facets") {
  const Report r = test::realistic();
  const Map load = map_of(r.tables[0]);
  REQUIRE(load.value);
  CHECK(load.grids.size() == 1);
  CHECK(load.grids[0].row.size() == 8);
  CHECK(load.grids[0].col.size() == 16);
  CHECK(load.chance == Approx(1.0 / 16));
  // coloured by the ratio to chance, which lies in the middle; nothing is below everything
  CHECK(load.by_ratio);
  CHECK(load.high / load.chance == Approx(load.chance / load.low));
  CHECK(position(load, load.chance) == Approx(0.5));
  CHECK(position(load, 0) == 0);
  CHECK(value_at(load, 0.25) == Approx(load.chance * std::sqrt(load.low / load.chance)));
  CHECK(load.grids[0].at(3, 11) == 0);
  const Map cosine = map_of(r.tables[7]);
  CHECK(cosine.grids.size() == 2);
  CHECK(cosine.diverging);
  CHECK(cosine.high < 1);  // the diagonal sets no span
  Table nothing = r.tables[0];
  nothing.columns[2].cells = std::vector<double>(8 * 16, 0);
  nothing.columns[2].chance = {4e-88};
  nothing.columns[2].around_chance = false;
  CHECK(map_of(nothing).high == 1e-3);  // three digits: no scale that reads 0.000 at both ends
  const Grid small = pooled(load.grids[0], 4, 16);
  CHECK(small.row.size() == 4);
  CHECK(small.col.size() == 8);
  CHECK(small.at(0, 0) == std::max({load.grids[0].at(0, 0), load.grids[0].at(0, 1),
                                    load.grids[0].at(1, 0), load.grids[0].at(1, 1)}));
}

TEST_CASE("a picture is a PNG") {
  const std::vector<std::uint8_t> cells{0, 1, 1, 0, 1, 0};
  const std::string got = png(cells, 2, 3, {{0, 0, 0}, {255, 255, 255}});
  CHECK(got.substr(0, 8) == "\x89PNG\r\n\x1a\n");
  CHECK(got.substr(16, 8) == std::string("\0\0\0\3\0\0\0\2", 8));
  CHECK(data_uri("a") == "data:image/png;base64,YQ==");
  CHECK(data_uri("ab") == "data:image/png;base64,YWI=");
  CHECK(data_uri("abc") == "data:image/png;base64,YWJj");
}
