#include "lib/signal/patches.h"

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double brightest = 255;

void check_picture(const Picture& p, const PatchRule& rule) {
  const int side = rule.patch * rule.merge;
  if (side < 1 || p.height < side || p.width < side || p.height % side || p.width % side) {
    throw Error(Exit::input, concat("a picture of ", p.width, " x ", p.height,
                                    " pixels does not divide into squares of ", side))
        .hint("a size that is a multiple, or another patch=");
  }
  const std::size_t channels = std::size_t(p.channels);
  if (rule.mean.size() != channels || rule.deviation.size() != channels) {
    throw Error(Exit::input,
                concat("the picture has ", p.channels, " channels, and there are ",
                       rule.mean.size(), " means and ", rule.deviation.size(), " deviations"));
  }
}

}  // namespace

std::vector<PatchPlace> patch_places(int rows, int columns, int merge) {
  std::vector<PatchPlace> out;
  for (int top = 0; top < rows; top += merge) {
    for (int left = 0; left < columns; left += merge) {
      for (int i = 0; i < merge * merge; ++i)
        out.push_back({top + i / merge, left + i % merge});
    }
  }
  return out;
}

namespace {

// Rows of frames[0] .. frames[rule.times - 1] from row `first` of `out`.
void fill_rows(std::span<const Picture* const> frames, const PatchRule& rule,
               const std::vector<PatchPlace>& places, Index first, Matrix<double>& out) {
  const int area = rule.patch * rule.patch;
  const int channels = frames[0]->channels;
  for (std::size_t n = 0; n < places.size(); ++n) {
    const auto row = out.row(first + Index(n));
    for (int i = 0; i < area * channels; ++i) {
      const int c = i % channels;
      const int at = i / channels;  // inside the patch
      const int y = places[n].row * rule.patch + at / rule.patch;
      const int x = places[n].column * rule.patch + at % rule.patch;
      const double mean = rule.mean[std::size_t(c)];
      const double deviation = rule.deviation[std::size_t(c)];
      for (int f = 0; f < rule.times; ++f) {
        const int to =
            rule.pixel_first ? (f * area + at) * channels + c : (c * rule.times + f) * area + at;
        const double value = frames[std::size_t(f)]->at(y, x, c) / brightest;
        row[std::size_t(to)] = (value - mean) / deviation;
      }
    }
  }
}

}  // namespace

Matrix<double> patches_of(const Picture& picture, const PatchRule& rule) {
  check_picture(picture, rule);
  const auto places =
      patch_places(picture.height / rule.patch, picture.width / rule.patch, rule.merge);
  const std::vector<const Picture*> frames(std::size_t(rule.times), &picture);
  Matrix<double> out(Index(places.size()), rule.numbers(picture.channels));
  fill_rows(frames, rule, places, 0, out);
  return out;
}

Matrix<double> patches_of(std::span<const Picture> frames, const PatchRule& rule) {
  if (frames.empty() || frames.size() % std::size_t(rule.times) != 0) {
    throw Error(Exit::input,
                concat("a clip of ", frames.size(), " frames, of which a row holds ", rule.times));
  }
  std::vector<const Picture*> all;
  for (const Picture& f : frames) {
    check_picture(f, rule);
    if (f.height != frames[0].height || f.width != frames[0].width)
      throw Error(Exit::input, "the frames of a clip have different sizes");
    all.push_back(&f);
  }
  const auto places =
      patch_places(frames[0].height / rule.patch, frames[0].width / rule.patch, rule.merge);
  const std::size_t times = std::size_t(rule.times);
  const Index count = Index(places.size());
  Matrix<double> out(count * Index(all.size() / times), rule.numbers(frames[0].channels));
  for (std::size_t f = 0; f < all.size(); f += times)
    fill_rows(std::span(all).subspan(f, times), rule, places, count * Index(f / times), out);
  return out;
}

}  // namespace moe
