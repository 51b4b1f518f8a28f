// Pictures and sounds as rows of numbers: patches and their order, log-mel frames.
#include <catch2/catch.hpp>
#include <cmath>
#include <numbers>

#include "lib/core/error.h"
#include "lib/signal/log_mel.h"
#include "lib/signal/patches.h"
#include "lib/signal/positions.h"

using namespace moe;

namespace {

std::vector<float> tone(double hz, int rate, double seconds) {
  std::vector<float> out;
  for (int i = 0; i < int(rate * seconds); ++i)
    out.push_back(float(0.5 * std::sin(2 * std::numbers::pi * hz * i / rate)));
  return out;
}

Index loudest(const Matrix<double>& frames, Index frame) {
  const auto row = frames.row(frame);
  return std::ranges::max_element(row) - row.begin();
}

}  // namespace

TEST_CASE("patches are rows in raster order or in blocks, channel by channel or pixel by pixel") {
  Picture p{.height = 4, .width = 4, .channels = 2, .pixel = {}};
  for (int i = 0; i < 32; ++i)
    p.pixel.push_back(std::uint8_t(i));
  PatchRule rule{.patch = 1, .mean = {0, 0}, .deviation = {1.0 / 255, 1.0 / 255}};
  const auto first_of = [&](const Matrix<double>& rows) {
    std::vector<int> out;
    for (Index t = 0; t < rows.rows(); ++t)
      out.push_back(int(std::lround(rows(t, 0))) / 2);
    return out;
  };
  CHECK(first_of(patches_of(p, rule)) ==
        std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
  rule.merge = 2;
  CHECK(first_of(patches_of(p, rule)) ==
        std::vector<int>{0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15});
  rule = {.patch = 2, .mean = {0, 0}, .deviation = {1.0 / 255, 1.0 / 255}};
  const auto row_of = [&](const PatchRule& r) {
    std::vector<int> out;
    const Matrix<double> rows = patches_of(p, r);
    for (const double v : rows.row(0))
      out.push_back(int(std::lround(v)));
    return out;
  };
  CHECK(row_of(rule) == std::vector<int>{0, 2, 8, 10, 1, 3, 9, 11});
  rule.pixel_first = true;
  CHECK(row_of(rule) == std::vector<int>{0, 1, 2, 3, 8, 9, 10, 11});
  rule.pixel_first = false;
  rule.times = 2;
  CHECK(row_of(rule) == std::vector<int>{0, 2, 8, 10, 0, 2, 8, 10, 1, 3, 9, 11, 1, 3, 9, 11});
  rule.patch = 3;
  CHECK_THROWS_WITH(patches_of(p, rule),
                    "a picture of 4 x 4 pixels does not divide into squares of 3");
  rule = {.patch = 2, .mean = {0}, .deviation = {1}};
  CHECK_THROWS_WITH(patches_of(p, rule), Catch::Contains("2 channels, and there are 1 means"));
}

TEST_CASE("a tone is loudest in the band of its frequency, and silence is even") {
  constexpr int bands = 20;
  const Matrix<double> filter = mel_filters(bands);
  for (const double hz : {300.0, 1000.0, 3000.0}) {
    const Matrix<double> mel = log_mel(tone(hz, sample_rate, 0.2), bands);
    CHECK(mel.rows() == 20);
    const auto column = std::lround(hz / 40);  // of the Fourier transform
    const auto weights = filter.row(column);
    CHECK(loudest(mel, 10) == std::ranges::max_element(weights) - weights.begin());
  }
  const Matrix<double> silent = log_mel(std::vector<float>(3200, 0.0f), bands);
  for (const double v : silent.flat())
    CHECK(v == Approx((-10.0 + 4) / 4));
  CHECK_THROWS_WITH(log_mel(std::vector<float>(200), bands), Catch::Contains("shorter than half"));
}

TEST_CASE("rows of text and pictures have positions in time, height and width") {
  const RowRun runs[] = {
      {.length = 2}, {.picture = true, .times = 1, .rows = 4, .columns = 6}, {.length = 1}};
  const RowPositions p = row_positions(runs, 2);
  const auto axis = [&](Index a) {
    const auto row = p.position.row(a);
    return std::vector<int>(row.begin(), row.end());
  };
  CHECK(axis(0) == std::vector<int>{0, 1, 2, 2, 2, 2, 2, 2, 5});
  CHECK(axis(1) == std::vector<int>{0, 1, 2, 2, 2, 3, 3, 3, 5});
  CHECK(axis(2) == std::vector<int>{0, 1, 2, 3, 4, 2, 3, 4, 5});
  CHECK(p.of_picture == std::vector<bool>{false, false, true, true, true, true, true, true, false});
  CHECK(p.next == 6);
  CHECK_THROWS_WITH(row_positions(runs, 4),
                    "a picture of 4 x 6 patches does not divide into blocks of 4");
}

TEST_CASE("frames of a clip may lie apart in time, and what follows begin behind the last") {
  RowRun clip{.picture = true, .times = 3, .rows = 4, .columns = 2, .time_step = 5};
  const RowRun text{.length = 1};
  for (const bool behind : {false, true}) {
    clip.behind_time = behind;
    const RowRun runs[] = {text, clip, text};
    const RowPositions p = row_positions(runs, 2);
    REQUIRE(p.position.cols() == 8);  // two rows a frame
    CHECK(p.position(0, 1) == 1);
    CHECK(p.position(0, 6) == 11);
    CHECK(p.position(1, 6) == 2);
    CHECK(p.position(2, 6) == 1);
    CHECK(p.position(0, 7) == (behind ? 12 : 3));
  }
}

TEST_CASE("frames that share a row lie beside each other in it") {
  std::vector<Picture> frames(2, Picture{.height = 2, .width = 2, .channels = 1, .pixel = {}});
  frames[0].pixel = {0, 51, 102, 153};
  frames[1].pixel = {255, 204, 51, 0};
  const PatchRule rule{.patch = 1, .times = 2, .mean = {0}, .deviation = {1}};
  const Matrix<double> rows = patches_of(frames, rule);
  REQUIRE(rows.rows() == 4);
  CHECK(rows(1, 0) == Approx(0.2));
  CHECK(rows(1, 1) == Approx(0.8));
  frames.pop_back();
  CHECK_THROWS_AS(patches_of(std::span<const Picture>(frames), rule), Error);
}

TEST_CASE("pairs of a head turn by time, height or width") {
  CHECK(pair_axes(PairRule::sections, {2, 3, 3}, 8) == std::vector<int>{0, 0, 1, 1, 1, 2, 2, 2});
  CHECK(pair_axes(PairRule::interleaved, {4, 2, 2}, 8) == std::vector<int>{0, 1, 2, 0, 1, 2, 0, 0});
  CHECK(pair_axes(PairRule::ernie, {3, 3, 2}, 8) == std::vector<int>{1, 2, 1, 2, 1, 2, 0, 0});
  CHECK_THROWS_WITH(pair_axes(PairRule::sections, {2, 3, 3}, 7),
                    "sections of 2, 3 and 3 pairs for 7");
  const std::vector<double> f{1, 0.5, 0.25};
  CHECK(frequencies_of(f, std::vector<int>{0, 1, 0}, 0) == std::vector<double>{1, 0, 0.25});
}
