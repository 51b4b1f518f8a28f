// Every finding tells which cells of the report it speaks of, and its numbers are theirs: over the
// examples of all metrics on traces of several kinds, over two traces, over the lights.
#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/compare/compare.h"
#include "analysis/compare/lights.h"
#include "analysis/metric/agreement.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "lib/core/error.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

std::size_t height(const Column& c) {
  return std::visit([](const auto& cells) { return cells.size(); }, c.cells);
}

const Column* find(const Report& r, const Quote& q) {
  for (const Table& t : r.tables) {
    for (const Column& c : t.columns) {
      if (t.id == q.table && c.name == q.column && c.metric == q.metric)
        return &c;
    }
  }
  return nullptr;
}

// As a whole word: 0.5 does not stand in "10.51".
bool stands(const std::string& text, const std::string& word) {
  const auto part = [](char c) {
    return std::isdigit(static_cast<unsigned char>(c)) != 0;
  };
  for (std::size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    const bool before = at > 0 && (part(text[at - 1]) || text[at - 1] == '.');
    const bool after = end < text.size() && part(text[end]);
    if (!before && !after)
      return true;
  }
  return false;
}

bool stands(const std::string& text, double number) {
  if (stands(text, percent(number)) || stands(text, figure(number, 0)))
    return true;
  for (int digits = 1; digits <= 4; ++digits) {
    if (stands(text, figure(number, digits)))
      return true;
  }
  return false;
}

bool stands(const std::string& text, const Column& c, const Quote& q) {
  if (q.use == Quote::Use::chance)
    return stands(text, c.chance.at(q.row));
  if (const auto* words = std::get_if<std::vector<std::string>>(&c.cells))
    return text.find((*words)[q.row]) != text.npos;
  if (const auto* counts = std::get_if<std::vector<std::int64_t>>(&c.cells))
    return stands(text, std::to_string((*counts)[q.row]));
  return stands(text, std::get<std::vector<double>>(c.cells)[q.row]);
}

void check(const Report& r) {
  for (const Finding& f : r.findings) {
    INFO(f.text);
    CHECK_FALSE(f.cells.empty());
    for (const Quote& q : f.cells) {
      INFO(q.table << " / " << q.column << " row " << q.row << ", " << q.rows << " rows");
      const Column* c = find(r, q);
      REQUIRE(c);
      REQUIRE(q.rows >= 1);
      REQUIRE(q.row + q.rows <= height(*c));
      if (q.use != Quote::Use::basis)
        CHECK(stands(f.text, *c, q));
    }
  }
}

std::vector<Make> kinds() {
  Make random;
  random.tokens = 512;
  std::vector<Make> out(5, random);
  out[1].routing = Make::collapsed;
  out[2].routing = Make::by_domain;
  out[2].logits = true;
  out[3].routing = Make::sticky;
  out[3].training = true;
  out[4].experts = 12;
  out[4].layers = 2;
  out[4].k = 3;
  return out;
}

AnalyzeOptions options() {
  AnalyzeOptions o;
  for (int id = 0; id < 64; ++id)
    o.planted_labels.push_back(id % 4);
  return o;
}

}  // namespace

TEST_CASE("every finding of every metric holds the cells that it quotes") {
  int findings = 0;
  for (const Make& m : kinds()) {
    const MemoryTrace trace = make_trace(m);
    for (const auto& entry : metrics().entries()) {
      for (const std::string& spec : split(entry.examples, ' ')) {
        INFO(spec << " on routing " << int(m.routing) << ", " << m.experts << " experts");
        const Report r = analyze(trace, {spec}, options());
        findings += int(r.findings.size());
        check(r);
      }
    }
  }
  CHECK(findings > 60);
}

TEST_CASE("a finding on ranks speaks of the size that was asked for, in the sweep or not") {
  const MemoryTrace trace = make_trace({.tokens = 512, .experts = 16});
  for (const int size : {2, 3, 4, 8, 16}) {
    const Report r = analyze(trace, {concat("ranks:ep_size=", size, ",num_nodes=1")});
    REQUIRE(r.findings.size() == 1);
    check(r);
    const Finding& f = r.findings[0];
    CHECK(f.text.starts_with(concat("On ", size, " expert-parallel ranks")));
    CHECK(f.cells.front().table == (size == 3 ? "ranks" : "all_to_all"));
    if (size != 3) {
      const QuotedTable t(r, "all_to_all");
      CHECK(t.counts("ranks")[f.cells.front().row] == size);
    }
  }
}

TEST_CASE("findings over two traces, over headlines and over lights hold their cells") {
  const MemoryTrace a = make_trace({.tokens = 4096});
  const MemoryTrace b = make_trace({.tokens = 4096, .routing = Make::collapsed});
  Report two;
  agree(b, a).report(two);
  REQUIRE(two.findings.size() == 1);
  check(two);
  AnalyzeOptions o;
  o.bootstrap = 40;
  const Report beside = side_by_side({{"one", &a, ""}, {"figure", &b, ""}, {"again", &a, ""}}, o);
  REQUIRE(beside.findings.size() == 2);
  check(beside);
  for (const MemoryTrace* trace : {&a, &b}) {
    Report lit = analyze(*trace, {"load", "drops", "ranks"});
    const std::size_t before = lit.findings.size();
    REQUIRE(add_lights(lit, thresholds({})));
    REQUIRE(lit.findings.size() == before + 1);
    check(lit);
  }
}

TEST_CASE(
    "a quoted cell is written with its number, and what is not there is a bug that is named") {
  Report r;
  r.tables.resize(1);
  r.tables[0].id = "some";
  Column layer{.name = "layer", .cells = std::vector<std::int64_t>{5, 1234}};
  Column share{.name = "share",
               .cells = std::vector<double>{0.25, 0.5},
               .metric = "a",
               .chance = {0.125, 0.0625}};
  Column other{.name = "share", .cells = std::vector<double>{0.75, 1}, .metric = "b"};
  r.tables[0].columns = {layer, share, other};
  const QuotedTable t(r, "some");
  tell(r, "In layer ", t.cell("layer", 1), " ", t.cell("share", 1).percent(), " (",
       t.chance("share", 0).figure(), "), ", 3, " in all ", derived("1.25", {t.basis("share")}));
  REQUIRE(r.findings.size() == 1);
  CHECK(r.findings[0].text == "In layer 1234 50.0 % (0.12), 3 in all 1.25");
  REQUIRE(r.findings[0].cells.size() == 4);
  CHECK(r.findings[0].cells[0].row == 1);
  CHECK(r.findings[0].cells[2].use == Quote::Use::chance);
  CHECK(r.findings[0].cells[3].use == Quote::Use::basis);
  CHECK(r.findings[0].cells[3].rows == 2);
  CHECK(t.cell(t.column("share", "b"), 0).number() == 0.75);
  check(r);
  CHECK(largest(t.numbers("share")) == 1);
  CHECK_THROWS_WITH(QuotedTable(r, "none"),
                    "a finding quotes table 'none', which is not in the report");
  CHECK_THROWS_WITH(t.cell("shares", 0),
                    "a finding quotes column 'shares', which table 'some' lacks");
  CHECK_THROWS_AS(t.cell("share", 2), Error);
  CHECK_THROWS_AS(t.chance("layer", 0), Error);
  CHECK_THROWS_AS(t.basis(t.column("share"), 1, 2), Error);
  CHECK_THROWS_AS(t.counts("share"), Error);
}
