// A line of text in a picture, as Pillow draws it.
#include <catch2/catch.hpp>
#include <filesystem>

#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/signal/glyph.h"
#include "tests/skip.h"

using namespace moe;

namespace {

const std::filesystem::path font = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";

// Sums of green by row and by column from Pillow 13.0 (FreeType 2.14.3, Raqm) on 120 x 18 pixels of
// (128, 100, 60): ImageDraw.text((0, 0), "time: 00:00:01.25", fill=(0, 0, 0), stroke_width=1,
// stroke_fill=(255, 255, 255)) with DejaVuSans.ttf at 12. Empty columns, of 1800, are left out.
const std::vector<int> by_row = {12000, 12000, 17725, 13229, 18274, 16507, 16270, 16949, 16334,
                                 18449, 18110, 14194, 21756, 12000, 12000, 12000, 12000, 12000};
const std::vector<int> by_column = {
    2954, 1539, 2577, 2354, 2472, 3262, 1713, 3045, 3046, 1571, 2613, 2178, 2552, 1910, 2295, 2371,
    2350, 2254, 2094, 2521, 2481, 1803, 2242, 2421, 2406, 2150, 2350, 2645, 2412, 2368, 2430};

}  // namespace

TEST_CASE("a line of text is drawn with its border as Pillow draws it") {
  if (!std::filesystem::is_regular_file(font)) {
    test::skip("no DejaVuSans.ttf (package fonts-dejavu-core)");
    return;
  }
  Picture p{.height = 18, .width = 120, .channels = 3, .pixel = {}};
  for (int i = 0; i < 18 * 120; ++i)
    p.pixel.insert(p.pixel.end(), {128, 100, 60});
  const std::string bytes = read_file(font, 1 << 24);
  try {
    write_text(p, "time: 00:00:01.25", bytes, 12, 1, font);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::environment);
    test::skip("built without FreeType");
    return;
  }
  // other versions of FreeType shade a few pixels by a level or two
  for (int y = 0; y < 18; ++y) {
    int sum = 0;
    for (int x = 0; x < 120; ++x)
      sum += p.at(y, x, 1);
    INFO("row " << y);
    CHECK(std::abs(sum - by_row[std::size_t(y)]) <= 20);
  }
  for (int x = 0; x < int(by_column.size()); ++x) {
    int sum = 0;
    for (int y = 0; y < 18; ++y)
      sum += p.at(y, x, 1);
    INFO("column " << x);
    CHECK(std::abs(sum - by_column[std::size_t(x)]) <= 5);
  }
  CHECK(p.at(17, 119, 0) == 128);
  // what stands outside the picture is not drawn, and nothing else is
  Picture small{.height = 4, .width = 5, .channels = 3, .pixel = std::vector<std::uint8_t>(60, 9)};
  write_text(small, "time", bytes, 12, 1, font);
  CHECK(small.pixel.size() == 60);
  CHECK_THROWS_AS(write_text(small, "time", "no font", 12, 1, "x.ttf"), Error);
}
