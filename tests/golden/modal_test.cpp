// Parts of multimodal models against files of expected values, where those are.
#include <catch2/catch.hpp>
#include <set>

#include "lib/golden/golden_layer.h"
#include "tests/skip.h"

using namespace moe;

TEST_CASE("shared golden parts of multimodal models agree") {
  const std::filesystem::path folder = test::shared("golden/modal/layers");
  if (!std::filesystem::is_directory(folder))
    return test::skip("no " + folder.string());
  // figures of traces, which the tests of metrics compare
  const std::set<std::string> not_here = {"trace_modality", "trace_modality_none"};
  std::size_t passed = 0;
  for (const GoldenResult& r :
       verify_golden(folder, GENERATE(as<std::string>{}, "reference", "cpu"))) {
    INFO(r.name << ": " << r.reason);
    const bool here = !not_here.contains(r.name);
    CHECK(r.state == (here ? GoldenResult::State::passed : GoldenResult::State::unsupported));
    passed += here;
  }
  CHECK(passed == 22);
}
