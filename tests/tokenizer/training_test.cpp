// Trained merges beside those of the library `tokenizers`.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/golden/golden_tokenizers.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/trainer.h"
#include "tests/skip.h"

using namespace moe;
using nlohmann::json;

namespace {

// Sequences are lines with their ends.
std::string trained(const BpeTraining& training, const std::string& text) {
  BpeTrainer trainer(training);
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    trainer.add(in.eof() ? line : line + "\n");
  return trainer.train([](int) {});
}

}  // namespace

TEST_CASE("golden trainings: vocabulary and merges are equal") {
  const auto folder = test::shared("golden/tokenizers/training");
  if (!std::filesystem::exists(folder))
    return test::skip("no recorded trainings at " + folder.string());
  for (const GoldenTokenizerResult& r : verify_golden_tokenizers(folder)) {
    INFO(r.name << ": " << r.why);
    CHECK(r.passed());
    CHECK(r.cases == 3);
  }
}

TEST_CASE("the most frequent pair merges first, of equal ones that with the smallest ids") {
  const BpeTraining training{.vocabulary = 259,
                             .frequency = 1,
                             .special = {},
                             .pattern = std::string(known_pattern("gpt2"))};
  const json model = json::parse(trained(training, "ab ab cd cd xx xxx")).at("model");
  // xx stands three times, twice of them in xxx
  CHECK(model.at("merges").at(0) == json::array({"x", "x"}));
  CHECK(model.at("vocab").at("xx") == 256);
  CHECK(model.at("merges").at(1) == json::array({"a", "b"}));
}
