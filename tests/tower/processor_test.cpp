// From the pixels of a picture to the rows of its encoder.
#include <unistd.h>
#include <catch2/catch.hpp>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/files/json.h"
#include "lib/tower/processor.h"
#include "lib/tower/sound_processor.h"
#include "tests/tower/made.h"

namespace fs = std::filesystem;
using namespace moe;
using test::picture;

namespace {

// A folder of its own, which goes with it.
struct Folder {
  fs::path path = fs::temp_directory_path() / concat("moe-processor-", getpid());
  Folder() {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

const TowerPatches in_blocks{.patch = 4, .times = 2, .merge = 2, .multiple = 2};

}  // namespace

TEST_CASE("a picture whose sides are multiples of a block is not resized") {
  const PictureProcessor processor(in_blocks, {.fewest_pixels = 64, .most_pixels = 4096});
  const Picture p = picture(16, 24);
  const PatchRows<float> rows = processor.rows(p);
  REQUIRE(rows.grid.size() == 1);
  CHECK(rows.grid[0].rows == 4);
  CHECK(rows.grid[0].columns == 6);
  const Matrix<double> want = patches_of(
      p,
      {.patch = 4, .merge = 2, .times = 2, .mean = {0.5, 0.5, 0.5}, .deviation = {0.5, 0.5, 0.5}});
  REQUIRE(want.rows() == rows.row.rows());
  for (Index i = 0; i < want.size(); ++i)
    CHECK(rows.row.data()[i] == Approx(want.data()[i]));
}

TEST_CASE("sizes by the rule of a family") {
  const auto grid = [](const ProcessorDefaults& rule, int height, int width) {
    return PictureProcessor(in_blocks, rule).grids({height, width}).at(0);
  };
  const PictureGrid bounded = grid({.fewest_pixels = 64, .most_pixels = 1024}, 100, 50);
  CHECK(bounded.rows == 10);
  CHECK(bounded.columns == 4);
  const PictureGrid padded = grid({.sizing = PictureSizing::padded}, 9, 21);
  CHECK(padded.rows == 4);
  CHECK(padded.columns == 6);
  const PictureGrid middle = grid({.sizing = PictureSizing::middle, .side = 16}, 9, 21);
  CHECK(middle.rows == 4);
  CHECK(middle.columns == 4);
  const PictureGrid corner =
      grid({.sizing = PictureSizing::corner, .side = 40, .shortest = 10}, 9, 21);
  CHECK(corner.rows == 5);  // 17 of 40 pixels: the last patch in part
  CHECK(corner.columns == 10);
  CHECK(corner.whole == 100);
  CHECK(grid({.sizing = PictureSizing::corner, .side = 40, .shortest = 30}, 90, 5).columns == 8);
}

TEST_CASE("a canvas of tiles is the one that Llama 4's processor chooses") {
  // height, width, the largest canvas, rows and columns of tiles of 336, height and width there: of
  // get_best_fit() and get_max_res_without_distortion() of the published class, 16 tiles at most
  struct Known {
    int height, width;
    bool largest;
    int rows, columns, fit_height, fit_width;
  };
  constexpr Known known[] = {
      {100, 100, false, 1, 1, 336, 336},     {100, 100, true, 4, 4, 1344, 1344},
      {336, 336, false, 1, 1, 336, 336},     {337, 336, false, 2, 1, 337, 336},
      {337, 336, true, 4, 4, 1344, 1340},    {400, 1200, false, 2, 4, 400, 1200},
      {400, 1200, true, 2, 6, 672, 2016},    {1200, 400, false, 4, 2, 1200, 400},
      {1000, 1000, false, 3, 3, 1000, 1000}, {2000, 3000, false, 3, 5, 1008, 1512},
      {2000, 3000, true, 3, 5, 1008, 1512},  {5000, 300, false, 15, 1, 5000, 300},
      {5000, 300, true, 16, 1, 5376, 322},   {640, 480, false, 2, 2, 640, 480},
      {640, 480, true, 4, 3, 1344, 1008},    {50, 2000, false, 1, 6, 50, 2000},
      {50, 2000, true, 1, 16, 134, 5376}};
  for (const Known& k : known) {
    INFO(k.height << " x " << k.width << (k.largest ? ", largest" : ""));
    const PictureSize size{k.height, k.width};
    const TileGrid canvas = canvas_for(size, 336, 16, k.largest);
    CHECK(canvas.rows == k.rows);
    CHECK(canvas.columns == k.columns);
    const PictureSize fit = size_on_canvas(size, canvas, 336, k.largest);
    CHECK(fit.height == k.fit_height);
    CHECK(fit.width == k.fit_width);
  }
}

TEST_CASE("of a list of sizes the one is taken that shows most and wastes least") {
  std::vector<PictureSize> sizes;
  for (const auto& [rows, columns] :
       std::vector<std::pair<int, int>>{{1, 2}, {1, 6}, {2, 2}, {2, 1}, {6, 1}, {2, 3}})
    sizes.push_back({rows * 490, columns * 490});
  const auto best = [&](int height, int width) {
    const PictureSize s = best_size({height, width}, sizes);
    return std::pair(s.height, s.width);
  };
  CHECK(best(490, 490) == std::pair(490, 980));  // the first of equal ones
  CHECK(best(600, 950) == std::pair(980, 980));
  CHECK(best(3000, 500) == std::pair(2940, 490));
  CHECK(best(500, 3000) == std::pair(490, 2940));
}

TEST_CASE("tiles hold a picture line by line, what is left is black, and all of it comes last") {
  const TowerPatches patches{.patch = 4};
  const PictureProcessor processor(patches,
                                   {.sizing = PictureSizing::tiles, .side = 8, .most_tiles = 6});
  const Picture p = picture(8, 14);
  const TileGrid tiles = processor.tiles({8, 14});
  CHECK(tiles.rows == 1);
  CHECK(tiles.columns == 2);
  const PatchRows<float> rows = processor.rows(p);
  REQUIRE(rows.grid.size() == 3);
  REQUIRE(rows.row.rows() == 12);
  const auto level = [&](int y, int x, int c) {
    return (p.at(y, x, c) / 255.0 - 0.5) / 0.5;
  };
  CHECK(rows.row(0, 0) == Approx(level(0, 0, 0)));
  CHECK(rows.row(4, 0) == Approx(level(0, 8, 0)));       // the second tile
  CHECK(rows.row(7, 4 + 1) == Approx(level(5, 13, 0)));  // its last patch, column 13
  CHECK(rows.row(7, 4 + 2) == -1.0f);                    // column 14 is black
  const Picture whole = resized(p, 8, 8);
  CHECK(rows.row(8, 0) == Approx((whole.at(0, 0, 0) / 255.0 - 0.5) / 0.5));
  // one tile is not shown twice
  CHECK(processor.rows(picture(5, 8)).grid.size() == 1);
}

TEST_CASE("numbers that Llama 4's processor rounds to bf16 have eight bits") {
  const TowerPatches patches{.patch = 4};
  const PictureProcessor processor(
      patches, {.sizing = PictureSizing::tiles, .pixels = {.in_bf16 = true}, .side = 8});
  const PatchRows<float> rows = processor.rows(picture(8, 8));
  for (const float v : rows.row.flat()) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &v, sizeof v);
    CHECK((bits & 0xFFFF) == 0);
  }
  CHECK(rows.row(0, 0) == -1.0f);
  CHECK(rows.row(0, 1) == Approx(2 * (picture(8, 8).at(0, 1, 0) / 255.0 - 0.5)).margin(0.005));
}

TEST_CASE("LLaVA's pad makes a square of the mean colour before the middle is cut out") {
  const TowerPatches patches{.patch = 4, .side = 8};
  const PixelRule pixels{.mean = {0.5, 0.25, 0.75}, .deviation = {1, 1, 1}};
  const PictureProcessor padded(
      patches, {.sizing = PictureSizing::middle, .pixels = pixels, .side = 8, .squared = true});
  const PatchRows<float> rows = padded.rows(picture(4, 8));
  // two lines of colour, four of the picture, two of colour
  const auto at = [&](int y, int x, int c) {
    return rows.row(y / 4 * 2 + x / 4, c * 16 + y % 4 * 4 + x % 4);
  };
  for (const int c : {0, 1, 2}) {
    CHECK(at(0, 3, c) ==
          Approx(int(pixels.mean[std::size_t(c)] * 255) / 255.0 - pixels.mean[std::size_t(c)]));
    CHECK(at(7, 7, c) == at(0, 0, c));
    CHECK(at(2, 5, c) == Approx(picture(4, 8).at(0, 5, c) / 255.0 - pixels.mean[std::size_t(c)]));
  }
}

TEST_CASE("Aria's processor cuts a picture into squares where it is told to") {
  const Folder folder;
  const TowerPatches patches{.patch = 4};
  const ProcessorDefaults rule{
      .sizing = PictureSizing::corner, .side = 16, .shortest = 8, .folder = folder.path};
  write_json(folder.path / "preprocessor_config.json",
             {{"max_image_size", 16},
              {"min_image_size", 8},
              {"split_image", true},
              {"split_resolutions", Json::array({Json::array({16, 32}), Json::array({32, 16})})}});
  const PictureProcessor processor(patches, rule);
  const PatchRows<float> rows = processor.rows(picture(16, 32));
  REQUIRE(rows.grid.size() == 2);
  CHECK(rows.grid[1].whole == 16);
  CHECK(rows.row(16, 0) == Approx((picture(16, 32).at(0, 16, 0) / 255.0 - 0.5) / 0.5));
  CHECK(processor.rows(picture(20, 10)).grid.size() == 2);
  write_json(folder.path / "preprocessor_config.json",
             {{"split_image", true}, {"split_resolutions", Json::array({Json::array({16})})}});
  CHECK_THROWS_WITH(PictureProcessor(patches, rule),
                    Catch::Matchers::Contains("split_resolutions"));
}

TEST_CASE("processor_config.json of transformers 5 holds the settings of all processors") {
  const Folder folder;
  write_json(folder.path / "preprocessor_config.json", {{"image_mean", Json::array({9, 9, 9})}});
  write_json(folder.path / "processor_config.json",
             {{"image_processor", {{"size", {{"shortest_edge", 64}, {"longest_edge", 1024}}}}},
              {"feature_extractor", {{"feature_size", 80}}}});
  const ProcessorDefaults rule{.folder = folder.path};
  CHECK(PictureProcessor(in_blocks, rule).grids({100, 50})[0].rows == 10);
  CHECK_THROWS_WITH(SoundProcessor(128, folder.path),
                    Catch::Matchers::Contains("feature_size is 80"));
  CHECK(SoundProcessor(80, folder.path).frames(1599) == 9);
  write_json(folder.path / "processor_config.json", {{"feature_extractor", {{"hop_length", 320}}}});
  CHECK_THROWS_WITH(SoundProcessor(80, folder.path),
                    Catch::Matchers::Contains("hop_length is 320 and must be 160"));
}

TEST_CASE("what a picture lacks to whole blocks is black") {
  const PictureProcessor processor(in_blocks, {.sizing = PictureSizing::padded});
  const PatchRows<float> rows = processor.rows(picture(8, 9));
  REQUIRE(rows.grid[0].columns == 4);
  CHECK(rows.row.row(rows.row.rows() - 1)[1] == -1.0f);
}

TEST_CASE("preprocessor_config.json says how, or is refused by its key") {
  const Folder folder;
  const fs::path file = folder.path / "preprocessor_config.json";
  const ProcessorDefaults rule{.folder = folder.path};
  write_json(file, {{"image_mean", Json::array({0.0, 0.0, 0.0})},
                    {"image_std", Json::array({1.0, 1.0, 1.0})},
                    {"size", {{"shortest_edge", 64}, {"longest_edge", 1024}}}});
  const PatchRows<float> rows = PictureProcessor(in_blocks, rule).rows(picture(16, 24));
  CHECK(rows.row(0, 1) == Approx(picture(16, 24).at(0, 1, 0) / 255.0));
  for (const auto& [key, value] : std::vector<std::pair<const char*, Json>>{
           {"do_resize", false}, {"resample", 0}, {"rescale_factor", 0.5}, {"patch_size", 5}}) {
    write_json(file, {{key, value}});
    CHECK_THROWS_WITH(
        PictureProcessor(in_blocks, rule),
        Catch::Matchers::Contains("preprocessor_config.json") && Catch::Matchers::Contains(key));
  }
}
