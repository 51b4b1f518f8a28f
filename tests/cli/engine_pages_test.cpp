// docs/engines: the commands of each page, to the letter, on a recording of the format that it
// speaks of.
#include <catch2/catch.hpp>
#include <fstream>

#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {

namespace {

struct Block {  // of shell commands
  std::string recording;
  std::vector<std::string> lines;
};

std::vector<fs::path> pages() {
  std::vector<fs::path> out;
  for (const auto& e : fs::directory_iterator(fs::path(MOE_SOURCE_DIR) / "docs/engines"))
    out.push_back(e.path());
  return out;
}

std::vector<Block> blocks_of(const fs::path& page) {
  const std::string mark = "<!-- tried with: ";
  std::ifstream in(page);
  std::vector<Block> out;
  bool inside = false;
  std::string recording;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(mark))
      recording = line.substr(mark.size(), line.find(" -->") - mark.size());
    if (inside && line != "```")
      out.back().lines.push_back(line);
    if (line == "```sh")
      out.push_back({std::exchange(recording, ""), {}});
    inside = line == "```sh" || (inside && line != "```");
  }
  return out;
}

// In a folder that holds what the recording's does.
void run_block(const Block& block, const fs::path& recordings) {
  const Folder f;
  fs::copy(recordings / block.recording, f.path(), fs::copy_options::recursive);
  for (const std::string& line : block.lines) {
    CAPTURE(line);
    REQUIRE(line.starts_with("moe "));
    const Result r = f.run(line.substr(4));
    CAPTURE(r.err);
    CHECK(r.code == 0);
    CHECK((line.find("report") == line.npos || line.find(" -o ") != line.npos ||
           r.out.find("Findings, worst first") != r.out.npos));
  }
}

}  // namespace

TEST_CASE("every command of the engine pages belongs to a recording, and every page is listed") {
  const std::string list = text_of(fs::path(MOE_SOURCE_DIR) / "docs/engines/README.md");
  int engines = 0;
  for (const fs::path& page : pages()) {
    CAPTURE(page.string());
    for (const Block& b : blocks_of(page))
      CHECK(b.recording != "");
    if (page.filename() == "README.md")
      continue;
    CHECK(!blocks_of(page).empty());
    CHECK(list.find("(" + page.filename().string() + ")") != list.npos);
    for (const char* part : {"## Record", "## What the report can say", "## Pitfalls"})
      CHECK(text_of(page).find(part) != std::string::npos);
    ++engines;
  }
  CHECK(engines >= 8);
}

TEST_CASE("the commands of the engine pages work on recordings of their formats") {
  const fs::path recordings = test::shared("golden/import");
  if (!fs::exists(recordings))
    return test::skip("no golden/import in ../shared");
  for (const fs::path& page : pages()) {
    for (const Block& b : blocks_of(page)) {
      CAPTURE(page.string(), b.recording);
      run_block(b, recordings);
    }
  }
}

}  // namespace moe::cli
