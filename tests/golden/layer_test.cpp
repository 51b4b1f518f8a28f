// The layer against files of expected values: our own small ones always, the shared ones where they
// are.
#include <catch2/catch.hpp>

#include <cstdlib>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/golden/golden_layer.h"
#include "tests/skip.h"

using namespace moe;

TEST_CASE("shared golden layers agree") {
  const std::filesystem::path folder = test::shared("golden/layers");
  if (!std::filesystem::is_directory(folder))
    return test::skip("no " + folder.string());
  for (const GoldenResult& r : verify_golden(folder)) {
    const auto error = [](const auto& e) {
      return e ? concat(e->error, " at ", e->where) : std::string("-");
    };
    if (std::getenv("MOE_GOLDEN_PRINT")) {
      WARN(r.name << ": " << name_of(r.state) << " " << r.reason << " f64 " << error(r.f64)
                  << " f32 " << error(r.f32));
    }
    INFO(r.name << ": " << r.reason);
    CHECK(r.state == (r.name == "accounting" ? GoldenResult::State::unsupported
                                             : GoldenResult::State::passed));
  }
}

TEST_CASE("our own golden layers agree") {
  const auto results = verify_golden(std::filesystem::path(MOE_SOURCE_DIR) / "tests/golden/cases",
                                     GENERATE(as<std::string>{}, "reference", "cpu"));
  CHECK(results.size() >= 4);
  for (const GoldenResult& r : results) {
    INFO(r.name << ": " << r.reason);
    CHECK(r.state == GoldenResult::State::passed);
    REQUIRE(r.f64);
    CHECK(r.f64->error <= 1e-10);
    REQUIRE(r.f32);
    CHECK(r.f32->error <= 1e-5);
    CHECK(r.f32->error > 0);  // it was compared
  }
}

TEST_CASE("a golden file that is wrong, or asks for what is not there, does not pass") {
  const auto device = make_backend("reference");
  const auto result = [&](const char* name) {
    return verify_golden_case(
        std::filesystem::path(MOE_SOURCE_DIR) / "tests/golden/bad" / (std::string(name) + ".h5"),
        *device);
  };
  using State = GoldenResult::State;
  CHECK(result("wrong_value").state == State::failed);
  CHECK_THAT(result("wrong_value").reason, Catch::Contains("grad/x[0]"));
  CHECK(result("wrong_id").state == State::failed);
  CHECK(result("not_a_number").state == State::failed);
  CHECK(result("no_such_file").state == State::failed);
  for (const auto& [name, why] : {std::pair{"unknown_expectation", "grad/soul"},
                                  {"unknown_option", "teleport"},
                                  {"unknown_value", "sine"},
                                  {"unknown_router", "oracle"},
                                  {"not_expressed", "temperature"},
                                  {"unused_parameter", "experts.middle"}}) {
    INFO(name << ": " << result(name).reason);
    CHECK(result(name).state == State::unsupported);
    CHECK_THAT(result(name).reason, Catch::Contains(why));
  }
  CHECK_THROWS_WITH(verify_golden("/no/such/folder"), Catch::Contains("cannot read the folder"));
}

TEST_CASE("shared golden mixers agree") {
  const std::filesystem::path folder = test::shared("golden/mixers");
  if (!std::filesystem::is_directory(folder))
    return test::skip("no " + folder.string());
  for (const GoldenResult& r :
       verify_golden(folder, GENERATE(as<std::string>{}, "reference", "cpu"))) {
    INFO(r.name << ": " << r.reason);
    CHECK(r.state == GoldenResult::State::passed);
  }
}
