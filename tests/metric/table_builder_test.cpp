// Figures stand under the ids of their definitions, and a table takes them by id.
#include "analysis/metric/table_builder.h"

#include <catch2/catch.hpp>

#include "lib/core/error.h"

using namespace moe;

TEST_CASE("a column holds the rows of its id, whatever stands before it") {
  Values values({{"a", {2}, {1, 2}}, {"b", {2}, {3, 4}}});
  values["b"].chance.add({5, 0.5});
  values["b"].chance.add({6, 0.25});
  values["c"].add(7, 8);
  TableBuilder t("id", "title", section::router);
  t.reading("how to read it").chart(Chart::lines).detail().warn("careful");
  t.layers({10, 11});
  t.column("b").unit("x").meaning("of b").of("b", values).digits(1);
  t.column("a").of("a", values).chance(0.5).interval({0, 1}, {2, 3});
  t.column("word").values(std::vector<std::string>{"green", "red"}).light();
  Report r;
  t.into(r);
  const Table& made = r.tables.at(0);
  CHECK(made.id == "id");
  CHECK(made.title == "title");
  CHECK(made.section == section::router);
  CHECK(made.reading == "how to read it");
  CHECK(made.chart == Chart::lines);
  CHECK(made.detail);
  CHECK(made.warnings == std::vector<std::string>{"careful"});
  CHECK(made.columns.at(0).name == "layer");
  CHECK(std::get<std::vector<std::int64_t>>(made.columns[0].cells) ==
        std::vector<std::int64_t>{10, 11});
  const Column& b = made.columns.at(1);
  CHECK(b.unit == "x");
  CHECK(b.meaning == "of b");
  CHECK(b.metric == "b");
  CHECK(b.digits == 1);
  CHECK(std::get<std::vector<double>>(b.cells) == std::vector<double>{3, 4});
  CHECK(b.chance == std::vector<double>{5, 6});
  CHECK(b.chance_spread == std::vector<double>{0.5, 0.25});
  const Column& a = made.columns.at(2);
  CHECK(std::get<std::vector<double>>(a.cells) == std::vector<double>{1, 2});
  CHECK(a.digits == 3);
  CHECK(a.chance == std::vector<double>{0.5, 0.5});
  CHECK(a.chance_spread.empty());
  CHECK(a.low == std::vector<double>{0, 1});
  CHECK(a.high == std::vector<double>{2, 3});
  CHECK(made.columns.at(3).light);
  CHECK_FALSE(a.light);
  CHECK(values.at("c").chance.spread.empty());  // it is not known
}

TEST_CASE("a figure that nobody computed is a bug that names itself") {
  const Values values{"known"};
  CHECK(values.has("known"));
  CHECK(values.at("known").value.empty());
  CHECK_FALSE(values.has("unknown"));
  try {
    values.at("unknown");
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.code() == Exit::bug);
    CHECK(std::string(e.what()).find("'unknown'") != std::string::npos);
  }
}
