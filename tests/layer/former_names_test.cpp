// Specs of earlier versions are read as they were meant, and are written with the names of today.
#include <catch2/catch.hpp>

#include "lib/core/spec.h"
#include "lib/router/former_names.h"
#include "lib/router/router.h"

using namespace moe;

TEST_CASE("a router under its former name is the same router") {
  std::string former, now;
  make_router("forced:k=2,hot=0.4", 8, former);
  make_router("synthetic_load:k=2,hot=0.4", 8, now);
  CHECK(former == now);
  CHECK(now.starts_with("synthetic_load:"));
}

TEST_CASE("options of a temperature schedule are read under their former names") {
  std::string spec;
  const auto router =
      make_router("softmax:temperature=2..1,cooling=linear,cooling_until=0.5", 4, spec);
  CHECK(spec.find("temperature_schedule=linear,temperature_until=0.5") != spec.npos);
  router->set_progress(0.25);
  CHECK(router->temperature == Approx(1.5));
  CHECK_THROWS_WITH(
      make_router("softmax:temperature=2..1,cooling=linear,temperature_schedule=cosine", 4),
      Catch::Contains("both are given"));
}

TEST_CASE("what was renamed is told, what was not is left alone") {
  Spec former("forced:k=2,zipf=1");
  const auto renamed = use_current_names(former);
  REQUIRE(renamed.size() == 1);
  CHECK(renamed[0].former == "forced");
  CHECK(renamed[0].now == "synthetic_load");
  CHECK(former.given_text() == "synthetic_load:k=2,zipf=1");
  Spec current("softmax:k=2");
  CHECK(use_current_names(current).empty());
  CHECK(current.given_text() == "softmax:k=2");
}
