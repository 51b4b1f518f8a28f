// The floors of the house: which folder may include which, that headers of libraries stay in their
// folder, and that nothing outside apps prints or exits. The rules are those of
// docs/architecture.md.
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace fs = std::filesystem;

namespace {

const fs::path root = MOE_SOURCE_DIR;

// A folder and the folders it may include from (itself always).
const std::map<std::string, std::set<std::string>> floors = {
    {"lib/core", {}},
    {"lib/files", {"lib/core"}},
    {"lib/backend", {"lib/core"}},
    {"lib/router", {"lib/core"}},
    {"lib/balance", {"lib/core", "lib/router"}},
    {"lib/trace", {"lib/core"}},
    {"lib/checkpoint", {"lib/core", "lib/files"}},
    {"lib/layer", {"lib/core", "lib/backend", "lib/router", "lib/balance"}},
    {"lib/check", {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer"}},
    {"lib/golden",
     {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer", "lib/trace"}},
    {"lib/model", {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer"}},
    {"lib/family",
     {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer", "lib/model",
      "lib/checkpoint", "lib/files"}},
    {"lib/plan",
     {"lib/core", "lib/router", "lib/layer", "lib/model", "lib/family", "lib/checkpoint",
      "lib/files"}},
    {"lib/run",
     {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer", "lib/model",
      "lib/family", "lib/checkpoint", "lib/files", "lib/trace", "datasets"}},
    {"lib/edit",
     {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer", "lib/model", "lib/run",
      "lib/trace"}},
    {"datasets", {"lib/core", "lib/files"}},
    {"analysis", {"lib/core", "lib/trace"}},
    {"apps",
     {"lib/core", "lib/files", "lib/backend", "lib/router", "lib/balance", "lib/trace",
      "lib/checkpoint", "lib/layer", "lib/check", "lib/golden", "lib/model", "lib/family",
      "lib/plan", "lib/run", "lib/edit", "datasets", "analysis"}},
};

// "lib/core/view.h" -> "lib/core", "analysis/metric/x.h" -> "analysis"
std::string folder_of(const std::string& path) {
  const auto first = path.find('/');
  if (first == path.npos)
    return "";
  if (!path.starts_with("lib/"))
    return path.substr(0, first);
  return path.substr(0, path.find('/', first + 1));
}

struct Line {
  std::string file, folder, text;
  int number;
};

std::vector<Line> lines() {
  std::vector<Line> out;
  for (const char* top : {"lib", "analysis", "datasets", "apps"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string ending = entry.path().extension().string();
      if (ending != ".h" && ending != ".cpp" && ending != ".cu" && ending != ".cuh" &&
          ending != ".inl") {
        continue;
      }
      const std::string name = fs::relative(entry.path(), root).generic_string();
      std::ifstream in(entry.path());
      std::string text;
      for (int n = 1; std::getline(in, text); ++n)
        out.push_back({name, folder_of(name), text, n});
    }
  }
  return out;
}

}  // namespace

TEST_CASE("includes go down the floors only, and from the root") {
  static const std::regex include(R"re(^\s*#\s*include\s+"([^"]+)")re");
  int seen = 0;
  for (const Line& l : lines()) {
    std::smatch m;
    if (!std::regex_search(l.text, m, include))
      continue;
    const std::string path = m[1];
    INFO(l.file << ":" << l.number << " includes " << path);
    ++seen;
    const std::string target = folder_of(path);
    REQUIRE(floors.count(l.folder) == 1);
    if (fs::exists(root / path)) {
      CHECK((target == l.folder || floors.at(l.folder).count(target) == 1));
    } else {
      CHECK(((path == "apps/build_info.h" || path == "apps/report_counts.inl") &&
             l.folder == "apps"));
    }
  }
  CHECK(seen > 100);
}

TEST_CASE("libraries stay where they belong") {
  const std::map<std::string, std::set<std::string>> homes = {
      {"hdf5.h", {"lib/trace"}},
      {"H5", {"lib/trace"}},
      {"CLI/", {"apps"}},
      {"dnnl", {"lib/backend"}},
      {"cublas", {"lib/backend"}},
      {"Eigen/", {"lib/backend", "analysis"}},
      {"nlohmann/",
       {"lib/files", "lib/checkpoint", "lib/family", "lib/plan", "lib/run", "lib/trace", "datasets",
        "analysis", "apps"}}};
  const std::set<std::string> bare = {"lib/core",    "lib/backend", "lib/router",
                                      "lib/balance", "lib/layer",   "lib/check"};
  static const std::regex include(R"re(^\s*#\s*include\s+<([^>]+)>)re");
  for (const Line& l : lines()) {
    std::smatch m;
    if (!std::regex_search(l.text, m, include))
      continue;
    const std::string path = m[1];
    INFO(l.file << ":" << l.number << " includes " << path);
    for (const auto& [library, folders] : homes) {
      if (path.starts_with(library))
        CHECK(folders.count(l.folder) == 1);
    }
    if (bare.count(l.folder))
      CHECK(!path.starts_with("fmt/"));
  }
}

TEST_CASE("only apps prints, and only main exits") {
  static const std::regex prints(
      R"re(\b(printf|puts|fputs|std::cout|std::cerr|fmt::print)\b\s*[(<])re");
  static const std::regex exits(R"re((^|[^_\w.>:])(ex)re"
                                R"re(it|abort|quick_exit)\()re");
  for (const Line& l : lines()) {
    if (l.folder == "apps")
      continue;
    INFO(l.file << ":" << l.number << ": " << l.text);
    CHECK(!std::regex_search(l.text, prints));
    CHECK(!std::regex_search(l.text, exits));
  }
}

TEST_CASE("files are one idea each") {
  std::map<std::string, int> size;
  for (const Line& l : lines())
    size[l.file] = l.number;
  for (const auto& [file, count] : size) {
    INFO(file << " has " << count << " lines");
    CHECK(count <= 600);
  }
}

// Two types of one name in one namespace are one type to the linker, whatever the compiler saw:
// with other members, the wrong copy constructor runs. Nested types ("struct A::B {") and what a
// file keeps for itself (namespace {) are their own.
TEST_CASE("a type's name is defined once") {
  static const std::regex opens(R"(^(?:enum class|struct|class)\s+(\w+)\b(?!::)[^;)"
                                R"(:(]*(?:final\s*)?(?::[^;]*)?\{)");
  static const std::regex space(R"()"
                                R"(^namespace ([\w:]*)\s*\{)");
  static const std::regex closes(R"()"
                                 R"(^\}  // namespace\s*([\w:]*))");
  std::map<std::string, std::string> home;
  std::vector<std::string> inside;
  std::string file;
  for (const Line& l : lines()) {
    if (l.file != file) {
      file = l.file;
      inside.clear();
    }
    std::smatch m;
    if (std::regex_search(l.text, m, space)) {
      inside.push_back(m[1]);
    } else if (std::regex_search(l.text, m, closes) && !inside.empty()) {
      inside.pop_back();
    } else if (std::regex_search(l.text, m, opens)) {
      std::string name;
      bool own = false;
      for (const std::string& s : inside) {
        own |= s.empty();
        name += s + "::";
      }
      if (own)
        continue;
      const auto [first, fresh] = home.emplace(name + m[1].str(), l.file);
      INFO(name << m[1] << " is defined in " << first->second << " and in " << l.file);
      CHECK(fresh);
    }
  }
  CHECK(home.size() > 100);
}
