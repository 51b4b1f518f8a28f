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

Matrix<double> patches_of(const Picture& picture, const PatchRule& rule) {
  check_picture(picture, rule);
  const auto places =
      patch_places(picture.height / rule.patch, picture.width / rule.patch, rule.merge);
  const int area = rule.patch * rule.patch;
  Matrix<double> out(Index(places.size()), rule.numbers(picture.channels));
  for (std::size_t n = 0; n < places.size(); ++n) {
    const auto row = out.row(Index(n));
    for (int i = 0; i < area * picture.channels; ++i) {
      const int c = i % picture.channels;
      const int at = i / picture.channels;  // inside the patch
      const int y = places[n].row * rule.patch + at / rule.patch;
      const int x = places[n].column * rule.patch + at % rule.patch;
      const double value = (picture.at(y, x, c) / brightest - rule.mean[std::size_t(c)]) /
                           rule.deviation[std::size_t(c)];
      for (int f = 0; f < rule.times; ++f) {
        const int to = rule.pixel_first ? (f * area + at) * picture.channels + c
                                        : (c * rule.times + f) * area + at;
        row[std::size_t(to)] = value;
      }
    }
  }
  return out;
}

}  // namespace moe
