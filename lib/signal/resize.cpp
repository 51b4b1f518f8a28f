#include "lib/signal/resize.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr int precision = 22;  // bits behind the point of a weight

double weight_at(ResizeFilter filter, double x) {
  const double d = std::abs(x);
  if (filter == ResizeFilter::linear)
    return d < 1 ? 1 - d : 0;
  constexpr double a = -0.5;
  if (d < 1)
    return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

// What one place of the result takes of a line.
struct Taps {
  int first = 0;
  std::vector<int> weight;  // of 2^-22
};

Taps taps_of(ResizeFilter filter, int at, int from, int to) {
  const double scale = double(from) / to;
  const double wide = std::max(scale, 1.0);
  const double support = (filter == ResizeFilter::linear ? 1 : 2) * wide;
  const double center = (at + 0.5) * scale;
  const int first = std::max(int(center - support + 0.5), 0);
  const int last = std::min(int(center + support + 0.5), from);
  std::vector<double> weights;
  double sum = 0;
  for (int x = first; x < last; ++x) {
    weights.push_back(weight_at(filter, (x - center + 0.5) * (1 / wide)));
    sum += weights.back();
  }
  Taps out{first, {}};
  for (double w : weights) {
    w = sum != 0 ? w / sum : w;
    out.weight.push_back(int((w < 0 ? -0.5 : 0.5) + w * (1 << precision)));
  }
  return out;
}

std::uint8_t byte_of(int sum) {
  return std::uint8_t(std::clamp(sum >> precision, 0, 255));
}

Picture across(const Picture& p, int width, ResizeFilter filter) {
  Picture out{.height = p.height, .width = width, .channels = p.channels, .pixel = {}};
  out.pixel.resize(std::size_t(p.height) * std::size_t(width) * std::size_t(p.channels));
  for (int x = 0; x < width; ++x) {
    const Taps taps = taps_of(filter, x, p.width, width);
    for (int y = 0; y < p.height; ++y) {
      for (int c = 0; c < p.channels; ++c) {
        int sum = 1 << (precision - 1);
        for (std::size_t i = 0; i < taps.weight.size(); ++i)
          sum += p.at(y, taps.first + int(i), c) * taps.weight[i];
        out.pixel[std::size_t((y * width + x) * p.channels + c)] = byte_of(sum);
      }
    }
  }
  return out;
}

Picture down(const Picture& p, int height, ResizeFilter filter) {
  Picture out{.height = height, .width = p.width, .channels = p.channels, .pixel = {}};
  out.pixel.reserve(std::size_t(height) * std::size_t(p.width) * std::size_t(p.channels));
  for (int y = 0; y < height; ++y) {
    const Taps taps = taps_of(filter, y, p.height, height);
    for (int x = 0; x < p.width; ++x) {
      for (int c = 0; c < p.channels; ++c) {
        int sum = 1 << (precision - 1);
        for (std::size_t i = 0; i < taps.weight.size(); ++i)
          sum += p.at(taps.first + int(i), x, c) * taps.weight[i];
        out.pixel.push_back(byte_of(sum));
      }
    }
  }
  return out;
}

// To the nearest whole number, from the middle to the even one, as Python rounds.
int nearest_whole(double v) {
  const double low = std::floor(v);
  const double rest = v - low;
  if (rest != 0.5)
    return int(rest < 0.5 ? low : low + 1);
  return int(std::fmod(low, 2) == 0 ? low : low + 1);
}

}  // namespace

Picture resized(const Picture& p, int height, int width, ResizeFilter filter) {
  if (height < 1 || width < 1 || p.height < 1 || p.width < 1) {
    throw Error(Exit::input, concat("a picture of ", p.width, " x ", p.height,
                                    " pixels cannot become one of ", width, " x ", height));
  }
  const Picture* at = &p;
  Picture wide, tall;
  if (width != p.width) {
    wide = across(*at, width, filter);
    at = &wide;
  }
  if (height != p.height) {
    tall = down(*at, height, filter);
    at = &tall;
  }
  return *at;
}

Picture cropped(const Picture& p, int top, int left, int height, int width) {
  Picture out{.height = height, .width = width, .channels = p.channels, .pixel = {}};
  for (int y = top; y < top + height; ++y) {
    for (int x = left; x < left + width; ++x) {
      const bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
      for (int c = 0; c < p.channels; ++c)
        out.pixel.push_back(inside ? p.at(y, x, c) : std::uint8_t(0));
    }
  }
  return out;
}

PictureSize bounded_size(PictureSize s, int factor, Index fewest, Index most) {
  const double longer = std::max(s.height, s.width);
  const double shorter = std::min(s.height, s.width);
  if (shorter < 1 || factor < 1 || longer / shorter > 200) {
    throw Error(Exit::input, concat("a picture of ", s.width, " x ", s.height,
                                    " pixels: the longer side may be 200 times the shorter"));
  }
  PictureSize out{nearest_whole(double(s.height) / factor) * factor,
                  nearest_whole(double(s.width) / factor) * factor};
  const double area = double(s.height) * s.width;
  const Index got = Index(out.height) * out.width;
  if (got > most) {
    const double shrink = std::sqrt(area / double(most));
    const auto below = [&](int side) {
      return std::max(factor, int(std::floor(side / shrink / factor)) * factor);
    };
    out = {below(s.height), below(s.width)};
  } else if (got < fewest) {
    const double grow = std::sqrt(double(fewest) / area);
    const auto above = [&](int side) {
      return int(std::ceil(side * grow / factor)) * factor;
    };
    out = {above(s.height), above(s.width)};
  }
  return out;
}

Picture middle_square(const Picture& p, int side, ResizeFilter filter) {
  const int shorter = std::min(p.height, p.width);
  const auto scaled = [&](int length) {
    return int(Index(side) * length / shorter);
  };
  const Picture fit = resized(p, scaled(p.height), scaled(p.width), filter);
  return cropped(fit, (fit.height - side) / 2, (fit.width - side) / 2, side, side);
}

}  // namespace moe
