// docs/reading-traces.md keeps its word: every block of Python on the page is run over the trace
// that the page names.
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "analysis/synth/synth.h"
#include "tests/skip.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> python_blocks(const fs::path& page) {
  std::ifstream in(page);
  std::vector<std::string> out;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (!inside && line == "```python") {
      inside = true;
      out.emplace_back();
    } else if (inside && line == "```") {
      inside = false;
    } else if (inside) {
      out.back() += line + "\n";
    }
  }
  return out;
}

int run(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

// The modules that a block imports at the beginning of a line.
std::string imports(const std::string& block) {
  std::istringstream in(block);
  std::string out;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("import "))
      out += line + "; ";
  }
  return out;
}

}  // namespace

TEST_CASE("the examples of docs/reading-traces.md run") {
  const char* given = std::getenv("MOE_PAGE_PYTHON");
  // where Debian puts python3-h5py
  const std::string python = given && *given ? given : "/usr/bin/python3";
  const auto blocks = python_blocks(fs::path(MOE_SOURCE_DIR) / "docs/reading-traces.md");
  REQUIRE(blocks.size() >= 4);
  const fs::path folder = fs::temp_directory_path() / ("moe-page-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  SynthShape s;
  s.tokens = 8192;
  s.layers = 2;
  s.experts = 32;
  s.k = 4;
  s.domains = 4;
  write_synth(folder / "a.moetrace.h5", make_synth("domains", s), {}, {});
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    INFO("block " << i + 1 << ":\n" << blocks[i]);
    REQUIRE(blocks[i].find("assert ") != std::string::npos);
    if (run("cd '" + folder.string() + "' && " + python + " -c '" + imports(blocks[i]) +
            "' >/dev/null 2>&1") != 0) {
      moe::test::skip("a module is not installed: " + imports(blocks[i]));
      continue;
    }
    std::ofstream(folder / "block.py") << blocks[i];
    const int status =
        run("cd '" + folder.string() + "' && PATH='" MOE_PROGRAM_FOLDER "':\"$PATH\" " + python +
            " block.py > out.txt 2>&1");
    std::ifstream said(folder / "out.txt");
    INFO(std::string(std::istreambuf_iterator<char>(said), {}));
    CHECK(status == 0);
  }
  fs::remove_all(folder);
}
