// Names of test cases reach ctest whole. CMake cuts a name at a semicolon, and a filter that
// matches no test case passes.
#include <catch2/catch.hpp>

#include <regex>

#include "tests/structure/source.h"

using namespace structure;

TEST_CASE("no name of a test case has a semicolon") {
  const std::regex name(R"re(TEST_CASE\(\s*("[^"]*"\s*)+)re");
  int seen = 0;
  for (const File& file : files({"tests"})) {
    const std::string text = file.text();
    for (std::sregex_iterator at(text.begin(), text.end(), name); at != std::sregex_iterator();
         ++at, ++seen) {
      INFO(file.name << ": " << at->str());
      CHECK(at->str().find(';') == std::string::npos);
    }
  }
  CHECK(seen > 300);
}
