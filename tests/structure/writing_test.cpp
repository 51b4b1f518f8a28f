// How the code is written: what a reader must hold at once has a limit.
#include <catch2/catch.hpp>

#include "tests/structure/source.h"

using namespace structure;

namespace {

const std::vector<std::string> all = {"lib", "analysis", "datasets", "apps", "tests"};

}  // namespace

TEST_CASE("a line has at most 100 columns, a file at most 600 lines") {
  for (const File& file : files(all)) {
    INFO(file.name);
    CHECK(file.lines.size() <= 600);
    for (std::size_t l = 0; l < file.lines.size(); ++l) {
      INFO("line " << l + 1);
      CHECK(columns(file.lines[l]) <= 100);
    }
  }
}

// A test case is a list of checks that is read once, from top to bottom, so it may be twice as
// long.
TEST_CASE("a function has at most 400 tokens, a test case 800") {
  int seen = 0;
  for (const File& file : files(all)) {
    for (const Function& f : functions_of(tokens_of(file.text()))) {
      INFO(file.name << ":" << f.line << " has " << f.tokens << " tokens");
      CHECK(f.tokens <= (f.test_case ? 800 : 400));
      ++seen;
    }
  }
  CHECK(seen > 2000);
}

TEST_CASE("a statement does one thing: no commas join them outside the header of a for") {
  for (const File& file : files(all)) {
    for (const int line : comma_statements(tokens_of(file.text()))) {
      INFO(file.name << ":" << line);
      CHECK(line == 0);
    }
  }
}
