// A folder of recorded models: the whole ones give their class's logits and choices, the malformed
// ones the right reaction.
#pragma once
#include <catch2/catch.hpp>
#include <filesystem>

#include "lib/backend/backend.h"
#include "lib/run/golden_models.h"
#include "tests/skip.h"

namespace moe::test {

inline void check_golden_models(const std::string& name, int least_whole, int least_malformed) {
  const std::filesystem::path golden = shared(name);
  if (!std::filesystem::exists(golden))
    return skip("no " + golden.string());
  const auto backend = make_backend("cpu");
  int whole = 0;
  int malformed = 0;
  for (const GoldenModelResult& r : verify_golden_models(golden, *backend)) {
    INFO(r.name << ": " << r.why);
    CHECK(r.passed);
    if (r.name.starts_with("bad/")) {
      ++malformed;
      continue;
    }
    ++whole;
    CHECK(r.logits > 0);
    CHECK(r.choices > 0);
    CHECK(r.wrong_choices == 0);
  }
  CHECK(whole >= least_whole);
  CHECK(malformed >= least_malformed);
}

}  // namespace moe::test
