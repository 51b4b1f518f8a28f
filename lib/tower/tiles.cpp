#include "lib/tower/tiles.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

TileGrid canvas_for(PictureSize s, int side, int most, bool largest) {
  if (s.height < 1 || s.width < 1 || side < 1 || most < 1)
    throw Error(Exit::input, concat("no canvas of at most ", most, " squares of ", side,
                                    " pixels for a picture of ", s.width, " x ", s.height));
  TileGrid best;
  float best_scale = 0;
  for (int rows = 1; rows <= most; ++rows) {
    for (int columns = 1; rows * columns <= most; ++columns) {
      // in float: canvases of one scale are those of one number of it
      const float down = float(rows * side) / float(s.height);
      const float across = float(columns * side) / float(s.width);
      const float scale = std::min(down, across);
      const bool grows = scale >= 1;
      const bool best_grows = best_scale >= 1;
      bool better = scale > best_scale;
      if (best_scale == 0)
        better = true;
      else if (grows && best_grows && !largest)
        better = scale < best_scale;
      const bool smaller = scale == best_scale && rows * columns < best.count();
      if (better || smaller) {
        best = {rows, columns};
        best_scale = scale;
      }
    }
  }
  return best;
}

namespace {

using Rounding = double (*)(double);

// The largest size of the same proportions inside of `target`.
PictureSize inside(PictureSize s, PictureSize target, Rounding whole) {
  const double across = double(target.width) / s.width;
  const double down = double(target.height) / s.height;
  if (across < down)
    return {std::min(int(whole(s.height * across)), target.height), target.width};
  return {target.height, std::min(int(whole(s.width * down)), target.width)};
}

}  // namespace

PictureSize size_on_canvas(PictureSize s, TileGrid canvas, int side, bool largest) {
  PictureSize target{canvas.rows * side, canvas.columns * side};
  if (!largest) {
    target.height = std::min(std::max(s.height, side), target.height);
    target.width = std::min(std::max(s.width, side), target.width);
  }
  const PictureSize out = inside(s, target, std::floor);
  return {std::max(out.height, 1), std::max(out.width, 1)};
}

PictureSize best_size(PictureSize s, std::span<const PictureSize> sizes) {
  PictureSize best;
  Index most_shown = 0;
  Index least_wasted = 0;
  for (const PictureSize& size : sizes) {
    const double scale = std::min(double(size.width) / s.width, double(size.height) / s.height);
    const Index fit = Index(int(s.width * scale)) * int(s.height * scale);
    const Index shown = std::min(fit, Index(s.width) * s.height);
    const Index wasted = Index(size.width) * size.height - shown;
    if (shown > most_shown || (shown == most_shown && wasted < least_wasted)) {
      best = size;
      most_shown = shown;
      least_wasted = wasted;
    }
  }
  if (best.height == 0)
    throw Error(Exit::input, concat("none of ", sizes.size(), " sizes is one for a picture of ",
                                    s.width, " x ", s.height, " pixels"));
  return best;
}

Picture centred(const Picture& p, PictureSize size, ResizeFilter filter) {
  const PictureSize fit = inside({p.height, p.width}, size, std::ceil);
  const Picture scaled = resized(p, fit.height, fit.width, filter);
  return cropped(scaled, -((size.height - fit.height) / 2), -((size.width - fit.width) / 2),
                 size.height, size.width);
}

std::vector<Picture> squares_of(const Picture& p, int side) {
  std::vector<Picture> out;
  for (int top = 0; top < p.height; top += side) {
    for (int left = 0; left < p.width; left += side) {
      out.push_back(
          cropped(p, top, left, std::min(side, p.height - top), std::min(side, p.width - left)));
    }
  }
  return out;
}

Picture squared_with(const Picture& p, std::span<const std::uint8_t> colour) {
  const int side = std::max(p.height, p.width);
  const int top = (side - p.height) / 2;
  const int left = (side - p.width) / 2;
  Picture out = cropped(p, -top, -left, side, side);
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      const bool inside = y >= top && y < top + p.height && x >= left && x < left + p.width;
      for (int c = 0; !inside && c < p.channels; ++c)
        out.pixel[std::size_t((y * side + x) * p.channels + c)] = colour[std::size_t(c)];
    }
  }
  return out;
}

}  // namespace moe
