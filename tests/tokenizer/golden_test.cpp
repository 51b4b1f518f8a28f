// Every kind of tokenizer beside what its own library made of the same texts.
#include <catch2/catch.hpp>

#include "lib/golden/golden_tokenizers.h"
#include "tests/skip.h"

using namespace moe;

TEST_CASE("golden tokenizers: ids, offsets and decoded text are equal") {
  const auto folder = test::shared("golden/tokenizers");
  if (!std::filesystem::exists(folder))
    return test::skip("no recorded tokenizers at " + folder.string());
  std::size_t cases = 0;
  for (const GoldenTokenizerResult& r : verify_golden_tokenizers(folder)) {
    INFO(r.name << ": " << r.failed << " of " << r.cases << " differ; " << r.why);
    CHECK(r.passed());
    cases += r.cases;
  }
  CHECK(cases > 9000);
}
