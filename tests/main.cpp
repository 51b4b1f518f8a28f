// Catch2's main, and the tests that could not run here. A program that ran without failure but
// skipped something ends with $MOE_SKIP_CODE, where that is set: ctest sets it and knows it.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdlib>

#include "tests/skip.h"

namespace moe::test {

static int skipped = 0;

void skip(const std::string& why) {
  ++skipped;
  Catch::cout() << "skipped: " << why << '\n';
}

std::filesystem::path shared(const std::string& path) {
  const char* given = std::getenv("MOE_SHARED");
  const std::filesystem::path root =
      given ? std::filesystem::path(given)
            : std::filesystem::path(MOE_SOURCE_DIR).parent_path() / "shared";
  return root / path;
}

}  // namespace moe::test

int main(int argc, char** argv) {
  const int failed = Catch::Session().run(argc, argv);
  const char* code = std::getenv("MOE_SKIP_CODE");
  return failed == 0 && moe::test::skipped > 0 && code ? std::atoi(code) : failed;
}
