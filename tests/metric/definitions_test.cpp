// docs/metrics.md says what the code says, and every id that is given has a definition.
// MOE_UPDATE_GOLDEN=1 rewrites the page.
#include "analysis/metric/definitions.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/metric/traces.h"

using namespace moe;

TEST_CASE("docs/metrics.md is in step with the table of definitions") {
  const auto path = std::filesystem::path(MOE_SOURCE_DIR) / "docs" / "metrics.md";
  if (std::getenv("MOE_UPDATE_GOLDEN"))
    std::ofstream(path) << definitions_page();
  std::ostringstream page;
  page << std::ifstream(path).rdbuf();
  CHECK(page.str() == definitions_page());
}

TEST_CASE("every id is defined once, by a metric that exists, and every id given is defined") {
  std::set<std::string_view> seen;
  for (const Definition& d : definitions()) {
    INFO(d.id);
    CHECK(seen.insert(d.id).second);
    CHECK((!of_one_trace(d) || metrics().find(d.metric) != nullptr));
    CHECK_FALSE(d.formula.empty());
    CHECK_FALSE(d.chance.empty());
    CHECK_FALSE(d.needs.empty());
  }
  Make m;
  m.tokens = 128;
  const MemoryTrace trace = make_trace(m);
  for (const MetricValue& v : measure(trace)) {
    INFO(v.id);
    CHECK(find_definition(v.id) != nullptr);
  }
  for (const Table& t : analyze(trace).tables) {
    for (const Column& c : t.columns) {
      INFO(t.id << " / " << c.metric);
      CHECK((c.metric.empty() || find_definition(c.metric) != nullptr));
    }
  }
  CHECK(find_definition("load_cv")->shape == "L");
  CHECK(find_definition("nothing") == nullptr);
}
