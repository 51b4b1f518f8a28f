// docs/datasets.md says which options each dataset has and what they are by default: so does the
// program, and nothing else.
#include <catch2/catch.hpp>
#include <map>

#include "tests/datasets/fixture.h"
#include "tests/page.h"

using namespace moe;
using namespace moe::test;

TEST_CASE("the page of datasets lists every option with its default") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const std::map<std::string, std::string> needed = {
      {"text", "path=corpus"},     {"tokens", "path=ids.txt"}, {"pairs", "path=pairs.tsv"},
      {"images", "path=pictures"}, {"sounds", "path=beeps"},   {"glyphs", "font=fonts"},
      {"rows", "path=rows.h5"}};
  std::vector<std::string> names;
  for (const Cells& row : table_of("datasets.md", {"dataset", "domains", "options (defaults)"})) {
    const std::string name = code_spans(row.at(0)).at(0);
    names.push_back(name);
    INFO(name);
    // of every dataset
    std::vector<std::string> listed = {only_validates(Spec(name)) ? "split=valid" : "split=train"};
    for (const std::string& option : code_spans(row.at(2))) {
      if (option.find('=') != option.npos)
        listed.push_back(option);
    }
    std::string spec = name;
    if (needed.count(name)) {
      const std::string key = needed.at(name).substr(0, needed.at(name).find('='));
      CHECK(listed.at(1) == key + "=");
      CHECK(refusal_of(name).find(key) != std::string::npos);
      listed.at(1) = needed.at(name);
      spec += ":" + needed.at(name);
    }
    const Corpus corpus({spec}, *tokenizer, 0);
    REQUIRE(corpus.specs().size() == 1);
    CHECK(options_of(corpus.specs().at(0)) == listed);
  }
  std::vector<std::string> expected = datasets().names();
  std::ranges::sort(names);
  std::ranges::sort(expected);
  CHECK(names == expected);
}
