// Parts of encoders by what must be true of them: places of a table's own size, blocks, turns that
// keep lengths, and encoders of random numbers whose pictures do not know each other.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/files/json.h"
#include "lib/tower/families.h"
#include "lib/tower/places.h"
#include "lib/tower/rotation.h"
#include "lib/tower/sound_encoder.h"
#include "lib/tower/tower.h"
#include "tests/tower/made.h"

namespace fs = std::filesystem;
using namespace moe;

namespace {

Matrix<double> noise(Index rows, Index cols, std::uint64_t stream) {
  Matrix<double> m(rows, cols);
  test::fill(m.flat(), stream, 1);
  return m;
}

double apart(std::span<const double> a, std::span<const double> b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

}  // namespace

TEST_CASE("places of a picture of the table's own size are the table") {
  const Matrix<double> table = noise(25, 3, 1);
  const PictureGrid own{2, 5, 5};
  for (const PlaceRule rule : {PlaceRule::corners, PlaceRule::halves}) {
    const Matrix<double> read = vectors_of_places(rule, table, 5, {&own, 1}, 1);
    REQUIRE(read.rows() == 50);
    CHECK(apart(read.view().slice(0, 25).flat(), table.flat()) < 1e-12);
    CHECK(apart(read.view().slice(25, 25).flat(), table.flat()) < 1e-12);
  }
}

TEST_CASE("places between cells keep a table of one number, and corners stay corners") {
  const Matrix<double> level(16, 1, 3.0);
  Matrix<double> table = noise(16, 1, 2);
  const PictureGrid picture{1, 6, 10};
  for (const PlaceRule rule : {PlaceRule::corners, PlaceRule::halves}) {
    const Matrix<double> read = vectors_of_places(rule, level, 4, {&picture, 1}, 2);
    for (const double v : read.flat())
      CHECK(v == Approx(3.0));
  }
  const Matrix<double> read = vectors_of_places(PlaceRule::corners, table, 4, {&picture, 1}, 1);
  CHECK(read(0, 0) == Approx(table(0, 0)));
  CHECK(read(9, 0) == Approx(table(3, 0)));
  CHECK(read(50, 0) == Approx(table(12, 0)));
  CHECK(read(59, 0) == Approx(table(15, 0)));
}

TEST_CASE("cells of places go through a table in order, whatever the picture's size") {
  for (const int side : {1, 4, 14, 27, 35, 70}) {
    for (const int count : {1, 2, 7, 27, 35, 70, 71}) {
      const std::vector<int> cells = cells_of_places(side, count, 1);
      INFO("side " << side << ", " << count << " patches");
      REQUIRE(int(cells.size()) == count);
      CHECK(std::ranges::is_sorted(cells));
      CHECK(cells.front() == 0);
      CHECK(cells.back() < side * side);
      for (int i = 0; i < count; ++i) {
        const int exact = i * side / count;
        const int cell = cells[std::size_t(i)] / side;
        CHECK((cell == exact || (i * side % count == 0 && cell == exact - 1)));
      }
    }
  }
}

TEST_CASE("blocks of a frame hold each patch once, in the order of patch_places") {
  const PictureGrid grids[] = {{2, 4, 6}, {1, 2, 2}};
  const std::vector<int> order = block_order(grids, 2, 2);
  REQUIRE(order.size() == 52);
  std::vector<int> sorted = order;
  std::ranges::sort(sorted);
  for (int i = 0; i < 52; ++i)
    CHECK(sorted[std::size_t(i)] == i);
  const auto places = places_of(grids, 2);
  for (std::size_t i = 0; i < 24; ++i)
    CHECK(order[i] == places[i].row * 6 + places[i].column);
  CHECK_THROWS_AS(block_order(PictureGrid{1, 3, 4}, 2, 2), Error);
}

TEST_CASE("a turn keeps the length of a head, and nothing turns at place 0") {
  const auto reference = make_reference<double>();
  const Matrix<double> x = noise(3, 16, 3);
  const PatchPlace places[] = {{0, 0}, {2, 1}, {0, 5}};
  for (const RotationRule rule : {RotationRule::halves, RotationRule::alternating}) {
    Array<double> turned(*reference, x.view());
    PatchRotation<double>(*reference, patch_angles(rule, places, 8, 10000))
        .turn(*reference, turned.view());
    const Matrix<double> y = turned.to_host();
    CHECK(apart(y.row(0), x.row(0)) < 1e-12);
    for (Index t = 0; t < 3; ++t) {
      for (Index h = 0; h < 2; ++h) {
        double before = 0;
        double after = 0;
        for (Index i = 0; i < 8; ++i) {
          before += x(t, h * 8 + i) * x(t, h * 8 + i);
          after += y(t, h * 8 + i) * y(t, h * 8 + i);
        }
        CHECK(after == Approx(before));
      }
    }
    CHECK(apart(y.row(1), x.row(1)) > 0.1);
  }
  CHECK_THROWS_AS(patch_angles(RotationRule::halves, places, 6, 10000), Error);
}

TEST_CASE("pictures encoded together are those encoded alone, in every family") {
  const auto reference = make_reference<double>();
  for (const test::Made& made : test::made_models()) {
    INFO(made.name);
    const test::MadeFolder folder(made);
    const Towers<double> towers = open_towers<double>(folder.path(), *reference);
    REQUIRE(towers.picture);
    const Index numbers = towers.picture->patches().numbers();
    Matrix<double> all = noise(patches_of(made.grids), numbers, 7);
    const TowerOutput<double> together = towers.picture->encode(all.view(), made.grids);
    Index from = 0;
    Index row = 0;
    for (std::size_t n = 0; n < made.grids.size(); ++n) {
      const PictureGrid& g = made.grids[n];
      const TowerOutput<double> alone =
          towers.picture->encode(all.view().slice(from, g.patches()), {&g, 1});
      REQUIRE(alone.rows == std::vector<Index>{together.rows[n]});
      REQUIRE(alone.features.rows() == together.rows[n]);
      const auto same = together.features.view().slice(row, together.rows[n]);
      CHECK(apart(alone.features.flat(), same.flat()) < 1e-9);
      for (std::size_t l = 0; l < alone.deepstack.size(); ++l) {
        const auto level = together.deepstack[l].view().slice(row, together.rows[n]);
        CHECK(apart(alone.deepstack[l].flat(), level.flat()) < 1e-9);
      }
      from += g.patches();
      row += together.rows[n];
    }
    CHECK(row == together.features.rows());
    CHECK(together.features.cols() == made.width);
    CHECK(Index(together.deepstack.size()) == made.deepstack);
    for (const double v : together.features.flat())
      REQUIRE(std::isfinite(v));
  }
}

TEST_CASE("float on cpu and double by definition agree in every family") {
  const auto reference = make_reference<double>();
  const auto cpu = make_backend("cpu");
  for (const test::Made& made : test::made_models()) {
    INFO(made.name);
    const test::MadeFolder folder(made);
    const Towers<double> exact = open_towers<double>(folder.path(), *reference);
    const Towers<float> fast = open_towers<float>(folder.path(), *cpu);
    const Matrix<double> rows =
        noise(patches_of(made.grids), exact.picture->patches().numbers(), 8);
    Matrix<float> narrow(rows.rows(), rows.cols());
    std::ranges::copy(rows.flat(), narrow.flat().begin());
    Matrix<double> widened(rows.rows(), rows.cols());
    std::ranges::copy(narrow.flat(), widened.flat().begin());
    const Matrix<double> want = exact.picture->encode(widened.view(), made.grids).features;
    const Matrix<float> got = fast.picture->encode(narrow.view(), made.grids).features;
    const std::vector<double> wide(got.flat().begin(), got.flat().end());
    CHECK(apart(wide, want.flat()) < 1e-4);
  }
}

TEST_CASE("a sound is cut into pieces and windows, and the longest piece pads the others") {
  const auto reference = make_reference<double>();
  const test::Made made = test::made_model("qwen3_omni_moe_thinker");
  const test::MadeFolder folder(made);
  const Towers<double> towers = open_towers<double>(folder.path(), *reference);
  REQUIRE(towers.sound);
  const int bands = towers.sound->bands();
  const std::vector<Matrix<double>> sounds{noise(250, bands, 9), noise(30, bands, 10)};
  const TowerOutput<double> together = towers.sound->encode(sounds);
  CHECK(together.rows == std::vector<Index>{13 + 13 + 7, 4});
  const TowerOutput<double> first = towers.sound->encode({&sounds[0], 1});
  CHECK(apart(first.features.flat(), together.features.view().slice(0, 33).flat()) < 1e-9);
  // alone, the short one is not padded to 100 frames: its last rows see nothing behind them
  const TowerOutput<double> second = towers.sound->encode({&sounds[1], 1});
  CHECK(apart(second.features.flat(), together.features.view().slice(33, 4).flat()) > 1e-6);
  CHECK(rows_of_frames(100) == 13);
  CHECK(rows_of_frames(1) == 1);
}

TEST_CASE("what an encoder cannot compute is refused by file and key") {
  const auto reference = make_reference<double>();
  const auto refusal = [&](const std::string& name, const char* part, const char* key, Json value) {
    test::Made made = test::made_model(name);
    Json& object = *part ? made.config[part] : made.config;
    object[key] = std::move(value);
    const test::MadeFolder folder(made, false);
    try {
      tower_sizes(made.config, folder.path());
    } catch (const Error& e) {
      CHECK(e.code() == Exit::input);
      return std::string(e.what());
    }
    return std::string("nothing was refused");
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(refusal("llama4", "vision_config", "pixel_shuffle_ratio", 0.3),
             Contains("config.json") && Contains("pixel_shuffle_ratio"));
  CHECK_THAT(refusal("llama4", "vision_config", "projector_input_dim", 21),
             Contains("projector_input_dim"));
  CHECK_THAT(refusal("aria", "vision_config", "hidden_act", "tanh"), Contains("hidden_act"));
  CHECK_THAT(refusal("aria", "", "vision_feature_layer", Json::array({-1, -2})),
             Contains("vision_feature_layer"));
  CHECK_THAT(refusal("aria", "", "projector_patch_to_query_dict", Json{{"x", 3}}),
             Contains("projector_patch_to_query_dict"));
  CHECK_THAT(refusal("qwen3_vl_moe", "vision_config", "out_hidden_size", 33),
             Contains("out_hidden_size"));
  CHECK_THAT(refusal("qwen3_vl_moe", "vision_config", "patch_size", Json::array({4, 5})),
             Contains("patch_size"));
  CHECK_THAT(refusal("ernie4_5_vl_moe", "vision_config", "temporal_merge_size", 3),
             Contains("temporal_merge_size"));
  CHECK_THAT(refusal("kimi_k25", "vision_config", "pos_emb_width", 7), Contains("pos_emb_width"));
  CHECK_THAT(refusal("qwen3_omni_moe_thinker", "audio_config", "n_window_infer", 10),
             Contains("n_window_infer"));
  CHECK_THAT(refusal("moe_llava_stablelm", "", "image_projector_type", "resampler"),
             Contains("image_projector_type"));
}

TEST_CASE("towers.def and the models of this test name the same families") {
  std::vector<std::string> made;
  for (const test::Made& m : test::made_models())
    made.push_back(m.name);
  for (const std::string& name : tower_families<float>().names()) {
    INFO(name);
    CHECK((name == "qwen3_omni_moe" || std::ranges::find(made, name) != made.end()));
  }
}
