// Clips on the way to an encoder: which frames, of which size, in which rows.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tower/clip_processor.h"
#include "tests/skip.h"
#include "tests/tower/made.h"

using namespace moe;
using test::picture;

namespace {

const TowerPatches pairs{.patch = 4, .times = 2, .merge = 2, .multiple = 2};

}  // namespace

TEST_CASE("frames without room for the time are refused, those of processors without times kept") {
  const std::filesystem::path font = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
  if (!std::filesystem::is_regular_file(font)) {
    test::skip("no DejaVuSans.ttf (package fonts-dejavu-core)");
    return;
  }
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / concat("moe-times-", ::getpid());
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(font, folder / "Roboto-Regular.ttf",
                             std::filesystem::copy_options::overwrite_existing);
  const std::vector<int> chosen{0, 5};
  std::vector<Picture> small(2, picture(9, 40));
  std::vector<Picture> large(2, picture(100, 200));
  const ClipProcessor ernie(pairs, {.style = ClipStyle::paired, .folder = folder});
  CHECK(ernie.missing_font().empty());
  CHECK_THROWS_WITH(ernie.write_times(small, chosen, 2),
                    Catch::Matchers::StartsWith("frames of 40 x 9 pixels are too small"));
  const ClipProcessor bare(pairs, {.style = ClipStyle::paired, .folder = folder / "none"});
  CHECK(bare.missing_font() == "Roboto-Regular.ttf");
  const ClipProcessor kimi(pairs, {.style = ClipStyle::chunked, .folder = folder});
  CHECK(kimi.missing_font().empty());
  for (const ClipProcessor* p : {&bare, &kimi})
    p->write_times(large, chosen, 2);
  CHECK(large[0].pixel == picture(100, 200).pixel);
  try {
    ernie.write_times(large, chosen, 2);
    CHECK_FALSE(large[0].pixel == picture(100, 200).pixel);
    CHECK_FALSE(large[0].pixel == large[1].pixel);  // 0 s and 2.5 s
    CHECK(large[0].at(99, 199, 0) == picture(100, 200).at(99, 199, 0));
  } catch (const Error& e) {
    CHECK(e.code() == Exit::environment);
    test::skip("built without FreeType");
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("frames are chosen as the processor of each family chooses them") {
  const ClipProcessor qwen(pairs, {.style = ClipStyle::stamped, .rate = 2, .fewest_frames = 4});
  // sample_frames() of Qwen3-VL's class
  CHECK(qwen.chosen(5, 24) == std::vector<int>{0, 1, 3, 4});
  CHECK(qwen.chosen(9, 3) == std::vector<int>{0, 2, 3, 5, 6, 8});
  CHECK(qwen.chosen(40, 8) == std::vector<int>{0, 4, 9, 13, 17, 22, 26, 30, 35, 39});
  CHECK(qwen.chosen(100, 25) == std::vector<int>{0, 14, 28, 42, 57, 71, 85, 99});
  CHECK(qwen.chosen(3, 2) == std::vector<int>{0, 1, 2});
  CHECK(qwen.chosen(2, 30) == std::vector<int>{0, 1});
  const ClipProcessor ernie(pairs, {.style = ClipStyle::paired, .most_frames = 4});
  CHECK(ernie.chosen(10, 24) == std::vector<int>{0, 2, 5, 7});
  CHECK(ernie.chosen(3, 24) == std::vector<int>{0, 1, 2});
  const ClipProcessor kimi(pairs, {.style = ClipStyle::chunked, .rate = 2, .most_frames = 1 << 20});
  CHECK(kimi.chosen(13, 5) == std::vector<int>{0, 2, 5, 7, 10});
  CHECK(kimi.chosen(1, 24) == std::vector<int>{0});
  CHECK_THROWS_AS(kimi.chosen(0, 5), Error);
}

TEST_CASE("sizes of clips keep to bounds of all frames, or of each") {
  const auto size = [](int frames, int height, int width) {
    const ClipProcessor qwen(
        pairs, {.style = ClipStyle::stamped, .fewest_pixels = 64, .most_pixels = 8192});
    const PictureGrid g = qwen.grids(frames, {height, width}).at(0);
    return std::pair(g.rows * 4, g.columns * 4);
  };
  // smart_resize() of Qwen3-VL's class, blocks of 8
  CHECK(size(4, 16, 24) == std::pair(16, 24));
  CHECK(size(3, 100, 50) == std::pair(72, 32));
  CHECK(size(30, 640, 480) == std::pair(16, 8));
  CHECK(size(8, 5, 30) == std::pair(8, 48));
  CHECK(size(2, 1000, 1000) == std::pair(64, 64));
  const ClipProcessor ernie({.patch = 4, .merge = 2, .multiple = 2},
                            {.style = ClipStyle::paired, .fewest_pixels = 64, .most_pixels = 8192});
  const PictureGrid g = ernie.grids(3, {100, 50}).at(0);
  CHECK(g.times == 4);      // the last frame once more
  CHECK(g.rows * 4 == 96);  // 12.5 blocks, to the even number
}

TEST_CASE("rows of a clip hold pairs of frames, the last of an odd number twice") {
  const ClipProcessor qwen(pairs,
                           {.style = ClipStyle::stamped, .fewest_pixels = 64, .most_pixels = 8192});
  std::vector<Picture> frames;
  for (const int add : {0, 3, 9}) {
    frames.push_back(picture(8, 16));
    for (std::uint8_t& v : frames.back().pixel)
      v = std::uint8_t(v / 2 + add);
  }
  const PatchRows<float> rows = qwen.rows(frames);
  REQUIRE(rows.grid.size() == 1);
  CHECK(rows.grid[0].times == 2);
  REQUIRE(rows.row.rows() == 16);
  const auto level = [&](int f, int y, int x) {
    return (frames[std::size_t(f)].at(y, x, 0) / 255.0 - 0.5) / 0.5;
  };
  CHECK(rows.row(0, 1) == Approx(level(0, 0, 1)));
  CHECK(rows.row(0, 16 + 1) == Approx(level(1, 0, 1)));
  CHECK(rows.row(8, 5) == Approx(level(2, 1, 1)));
  CHECK(rows.row(8, 16 + 5) == Approx(level(2, 1, 1)));
  const ClipProcessor kimi({.patch = 4, .multiple = 2}, {.style = ClipStyle::chunked, .chunk = 2});
  const PatchRows<float> chunks = kimi.rows(frames);
  REQUIRE(chunks.grid.size() == 2);
  CHECK(chunks.grid[0].times == 2);
  CHECK(chunks.grid[1].times == 1);
  CHECK(chunks.row(8, 0) == Approx(level(1, 0, 0)));
  frames.back() = picture(8, 8);
  CHECK_THROWS_WITH(qwen.rows(frames), "the frames of a clip have different sizes");
}

TEST_CASE("the seconds of a pair of frames are the mean of both") {
  const ClipProcessor qwen(pairs, {.style = ClipStyle::stamped, .rate = 2});
  const std::vector<int> chosen{0, 3, 8};
  CHECK(qwen.seconds_between(chosen, 0, 2, 4) == Approx(0.375));
  CHECK(qwen.seconds_between(chosen, 2, 2, 4) == Approx(2.0));  // the last one twice
  CHECK(qwen.seconds_between(chosen, 1, 1, 4) == Approx(0.75));
}
