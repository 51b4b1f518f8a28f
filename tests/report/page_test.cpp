// Report pages in a real browser: operate_page.py presses keys, clicks and looks. Without Chromium
// it is skipped in a sentence.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <catch2/catch.hpp>

#include "analysis/report/render.h"
#include "tests/report/fixture.h"
#include "tests/skip.h"

using namespace moe;
namespace fs = std::filesystem;

TEST_CASE("the page sorts, unfolds, shows values and fits, by key and by pointer, in a browser") {
  if (std::system("chromium --version > /dev/null 2>&1") != 0)
    return test::skip("no chromium");
  const fs::path folder = fs::temp_directory_path() / "moe_operate_page";
  fs::create_directories(folder);
  std::string command =
      "python3 '" + std::string(MOE_SOURCE_DIR) + "/tests/report/operate_page.py' chromium";
  int number = 0;
  for (const Report& r : {test::realistic(), test::awkward(), test::large(12, 80)}) {
    const fs::path page = folder / (std::to_string(number++) + ".html");
    std::ofstream(page, std::ios::binary) << renderers().at("html").make(r, {});
    command += " '" + page.string() + "'";
  }
  CHECK(std::system(command.c_str()) == 0);
  fs::remove_all(folder);
}
