// Figures as files: well-formed SVG that needs no style sheet, in the two widths of a paper, and as
// PDF and PNG where the program can.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "analysis/report/figures.h"
#include "lib/core/error.h"
#include "tests/report/fixture.h"
#include "tests/skip.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

// Parses every file as XML, and checks that no colour is left to a style sheet elsewhere.
constexpr const char* check = R"py(
import sys, xml.etree.ElementTree as tree
widths = set()
for path in sys.argv[1:]:
    text = open(path, encoding='utf-8').read()
    root = tree.fromstring(text)
    assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
    assert 'var(--' not in text, path
    widths.add(root.get('width'))
    classes = {c for e in root.iter() for c in (e.get('class') or '').split()} - {'m', 'map'}
    style = root.find('{http://www.w3.org/2000/svg}style').text
    missing = {c for c in classes if '.' + c not in style}
    assert not missing, (path, missing)
assert widths <= {'3.30in', '6.90in'} and widths, widths
)py";

struct Folder {
  fs::path path = fs::temp_directory_path() / "moe_figures";
  Folder() {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Folder() {
    fs::remove_all(path);
  }
};

void spit(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace

TEST_CASE("every chart becomes a file of its own that stands alone") {
  const Folder folder;
  std::set<std::string> names;
  for (const Report& r : {test::realistic(), test::awkward(), test::large(12, 80)}) {
    for (const Figure& f : figures_of(r)) {
      names.insert(f.name);
      spit(folder.path / (f.name + ".svg"), f.svg);
    }
    spit(folder.path / "check.py", check);
    const std::string command = "cd '" + folder.path.string() + "' && python3 check.py *.svg";
    CHECK(std::system(command.c_str()) == 0);
  }
  for (const char* name : {"load", "balance", "balance-2", "paths", "cosine", "odd", "line"}) {
    INFO(name);
    CHECK(names.contains(name));
  }
  if (std::system("rsvg-convert --version > /dev/null 2>&1") != 0)
    return test::skip("no rsvg-convert");
  const std::string convert = "cd '" + folder.path.string() +
                              "' && rsvg-convert -f pdf -o load.pdf load.svg && "
                              "pdftoppm -r 50 -png load.pdf page && test -s page-1.png";
  CHECK(std::system(convert.c_str()) == 0);
}

TEST_CASE("figures are rendered where the program can, and refused in a sentence where not") {
  const Figure f = figures_of(test::realistic()).front();
  if (!can_render_figures()) {
    CHECK_THROWS_AS(figure_pdf(f), Error);
    CHECK_THROWS_AS(figure_png(f), Error);
    return;
  }
  CHECK(figure_pdf(f).starts_with("%PDF"));
  CHECK(figure_png(f).substr(1, 3) == "PNG");
  CHECK(figure_pdf(f) == figure_pdf(f));
}
