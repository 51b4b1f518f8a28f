// Only apps speaks to the person at the terminal, and only its main ends the program.
#include <catch2/catch.hpp>
#include <regex>

#include "tests/structure/source.h"

using namespace structure;

TEST_CASE("only apps prints, and only main exits") {
  static const std::regex prints(
      R"re(\b(printf|puts|fputs|std::cout|std::cerr|fmt::print)\b\s*[(<])re");
  static const std::regex exits(R"re((^|[^_\w.>:])(exit|abort|quick_exit)\()re");
  for (const File& file : files({"lib", "analysis", "datasets"})) {
    for (const std::string& line : file.lines) {
      INFO(file.name << ": " << line);
      CHECK(!std::regex_search(line, prints));
      CHECK(!std::regex_search(line, exits));
    }
  }
}
