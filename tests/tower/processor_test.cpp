// From the pixels of a picture to the rows of its encoder.
#include <unistd.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/files/json.h"
#include "lib/tower/processor.h"
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
    return PictureProcessor(in_blocks, rule).grid({height, width});
  };
  const PictureGrid bounded = grid({.fewest_pixels = 64, .most_pixels = 1024}, 100, 50);
  CHECK(bounded.rows == 10);
  CHECK(bounded.columns == 4);
  const PictureGrid padded = grid({.sizing = PictureSizing::padded}, 9, 21);
  CHECK(padded.rows == 4);
  CHECK(padded.columns == 6);
  const PictureGrid tile = grid({.sizing = PictureSizing::tile, .side = 16}, 9, 21);
  CHECK(tile.rows == 4);
  CHECK(tile.columns == 4);
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
