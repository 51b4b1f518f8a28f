// docs/datasets.md says which patterns moe synth has, with which options.
#include <catch2/catch.hpp>

#include "analysis/synth/synth.h"
#include "tests/page.h"

using namespace moe;
using namespace moe::test;

TEST_CASE("the page of datasets lists every pattern and its options") {
  std::vector<std::string> names;
  for (const Cells& row : table_of("datasets.md", {"pattern", "what is known"})) {
    const std::string pattern = code_spans(row.at(0)).at(0);  // "hot:experts=,share="
    const std::string name = pattern.substr(0, pattern.find(':'));
    names.push_back(name);
    INFO(pattern);
    SynthShape shape;
    shape.domains = 4;
    std::string has = name;
    for (const std::string& option : options_of(make_synth(name, shape).resolved))
      has += (has == name ? ":" : ",") + key_of(option) + "=";
    CHECK(has == pattern);
  }
  std::vector<std::string> expected = patterns().names();
  std::ranges::sort(names);
  std::ranges::sort(expected);
  CHECK(names == expected);
}
