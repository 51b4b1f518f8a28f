// Two types of one name in one namespace are one type to the linker, whatever the compiler saw:
// with other members, the wrong copy constructor runs.
#include <catch2/catch.hpp>
#include <map>
#include <regex>

#include "tests/structure/source.h"

using namespace structure;

namespace {

// The types of a file by their full names. Nested types ("struct A::B {") and what a file keeps for
// itself (namespace {) are left out: they are their own.
std::vector<std::string> types_of(const File& file) {
  static const std::regex opens(
      R"re(^(?:enum class|struct|class)\s+(\w+)\b(?!::)[^;:(]*(?:final\s*)?(?::[^;]*)?\{)re");
  static const std::regex space(R"re(^namespace ([\w:]*)\s*\{)re");
  static const std::regex closes(R"re(^\}  // namespace\s*([\w:]*))re");
  std::vector<std::string> out;
  std::vector<std::string> inside;
  for (const std::string& line : file.lines) {
    std::smatch m;
    if (std::regex_search(line, m, space)) {
      inside.push_back(m[1]);
    } else if (std::regex_search(line, m, closes) && !inside.empty()) {
      inside.pop_back();
    } else if (std::regex_search(line, m, opens)) {
      std::string name;
      bool own = false;
      for (const std::string& s : inside) {
        own |= s.empty();
        name += s + "::";
      }
      if (!own)
        out.push_back(name + m[1].str());
    }
  }
  return out;
}

}  // namespace

TEST_CASE("a type's name is defined once") {
  std::map<std::string, std::string> home;
  for (const File& file : files({"lib", "analysis", "datasets", "apps"})) {
    for (const std::string& name : types_of(file)) {
      const auto [first, fresh] = home.emplace(name, file.name);
      INFO(name << " is defined in " << first->second << " and in " << file.name);
      CHECK(fresh);
    }
  }
  CHECK(home.size() > 100);
}
