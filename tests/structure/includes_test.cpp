// Which folder may include which, and where headers of libraries may be included. The rules are
// those of docs/architecture.md.
#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <string>

#include "tests/page.h"
#include "tests/structure/source.h"

namespace fs = std::filesystem;

namespace {

// A folder and the folders it may include from (itself always).
const std::map<std::string, std::set<std::string>> floors = {
    {"lib/core", {}},
    {"lib/files", {"lib/core"}},
    {"lib/comm", {"lib/core"}},
    {"lib/backend", {"lib/core"}},
    {"lib/router", {"lib/core"}},
    {"lib/balance", {"lib/core", "lib/router"}},
    {"lib/trace", {"lib/core", "lib/files"}},
    {"lib/checkpoint", {"lib/core", "lib/files"}},
    {"lib/tokenizer", {"lib/core", "lib/files"}},
    {"lib/layer", {"lib/core", "lib/backend", "lib/router", "lib/balance"}},
    {"lib/check", {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer"}},
    {"lib/import", {"lib/core", "lib/files", "lib/trace", "lib/checkpoint"}},
    {"lib/export", {"lib/core", "lib/files", "lib/trace"}},
    {"lib/golden",
     {"lib/core", "lib/files", "lib/backend", "lib/router", "lib/balance", "lib/layer", "lib/model",
      "lib/trace", "lib/tokenizer", "lib/signal"}},
    {"lib/model",
     {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer", "lib/signal"}},
    {"lib/family",
     {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer", "lib/model",
      "lib/checkpoint", "lib/files"}},
    {"lib/plan",
     {"lib/core", "lib/router", "lib/layer", "lib/model", "lib/family", "lib/checkpoint",
      "lib/files", "lib/trace", "lib/serving", "lib/tower"}},
    {"lib/serving", {"lib/core"}},
    {"lib/signal", {"lib/core", "lib/files"}},
    {"lib/tower", {"lib/core", "lib/files", "lib/backend", "lib/checkpoint", "lib/signal"}},
    {"lib/run",
     {"lib/core", "lib/backend", "lib/router", "lib/balance", "lib/layer", "lib/model",
      "lib/family", "lib/checkpoint", "lib/files", "lib/tokenizer", "lib/trace", "lib/tower",
      "datasets"}},
    {"lib/edit",
     {"lib/core", "lib/files", "lib/backend", "lib/router", "lib/balance", "lib/checkpoint",
      "lib/layer", "lib/model", "lib/family", "lib/run", "lib/trace"}},
    {"lib/study", {"lib/core", "lib/files", "lib/checkpoint", "lib/trace", "analysis"}},
    {"datasets",
     {"lib/core", "lib/files", "lib/tokenizer", "lib/signal", "lib/trace", "lib/tower"}},
    {"analysis", {"lib/core", "lib/trace", "lib/serving"}},
    {"apps",
     {"lib/core",       "lib/files",  "lib/backend", "lib/router", "lib/balance", "lib/trace",
      "lib/checkpoint", "lib/import", "lib/export",  "lib/layer",  "lib/check",   "lib/golden",
      "lib/model",      "lib/family", "lib/plan",    "lib/run",    "lib/edit",    "lib/study",
      "lib/tokenizer",  "lib/comm",   "lib/signal",  "lib/tower",  "datasets",    "analysis"}},
};

struct Line {
  std::string file, folder, text;
  int number;
};

std::vector<Line> lines() {
  std::vector<Line> out;
  for (const structure::File& file : structure::files({"lib", "analysis", "datasets", "apps"})) {
    for (std::size_t l = 0; l < file.lines.size(); ++l)
      out.push_back({file.name, file.folder, file.lines[l], int(l) + 1});
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
    const std::string target = structure::folder_of(path);
    REQUIRE(floors.count(l.folder) == 1);
    if (fs::exists(structure::root() / path)) {
      CHECK((target == l.folder || floors.at(l.folder).count(target) == 1));
    } else {
      const bool generated = path == "apps/build_info.h" || path == "apps/report_counts.inl" ||
                             path == "lib/study/studies.inl";
      CHECK((generated && target == l.folder));
    }
  }
  CHECK(seen > 100);
}

TEST_CASE("the floors of docs/architecture.md are those that are checked") {
  std::map<std::string, int> floor_of;
  for (const auto& row : moe::test::table_of("architecture.md", {"floor", "folders"})) {
    for (const std::string& folder : moe::test::code_spans(row.at(1)))
      floor_of[folder] = std::stoi(row.at(0));
  }
  CHECK(floor_of.size() == floors.size());
  for (const auto& [folder, below] : floors) {
    INFO(folder);
    REQUIRE(floor_of.count(folder) == 1);
    for (const std::string& target : below) {
      INFO("may include " << target);
      CHECK(floor_of[target] < floor_of[folder]);
    }
  }
}

TEST_CASE("libraries stay where they belong") {
  const std::map<std::string, std::set<std::string>> homes = {
      {"hdf5.h", {"lib/trace"}},
      {"H5", {"lib/trace"}},
      {"CLI/", {"apps"}},
      {"dnnl", {"lib/backend"}},
      {"pcre2", {"lib/tokenizer"}},
      {"png.h", {"lib/signal"}},
      {"jpeglib.h", {"lib/signal"}},
      {"sndfile.h", {"lib/signal"}},
      {"ft2build.h", {"lib/signal"}},
      {"gif_lib.h", {"lib/signal"}},
      {"toml++", {"lib/study"}},
      {"cublas", {"lib/backend"}},
      {"mpi.h", {"lib/comm"}},
      {"nccl.h", {"lib/comm"}},
      {"Eigen/", {"lib/backend", "analysis"}},
      {"nlohmann/",
       {"lib/files", "lib/checkpoint", "lib/import", "lib/tokenizer", "lib/golden", "lib/family",
        "lib/plan", "lib/run", "lib/study", "lib/trace", "lib/tower", "datasets", "analysis",
        "apps"}}};
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
