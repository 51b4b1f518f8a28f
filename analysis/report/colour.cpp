#include "analysis/report/colour.h"

#include <cmath>
#include <numbers>

#include <fmt/format.h>

namespace moe::drawing {
namespace {

struct Lab {
  double l, a, b;
};

Lab lab(double lightness, double chroma, double hue) {
  const double angle = hue * std::numbers::pi / 180;
  return {lightness, chroma * std::cos(angle), chroma * std::sin(angle)};
}

std::array<double, 3> linear(Lab c) {
  const double l = std::pow(c.l + 0.3963377774 * c.a + 0.2158037573 * c.b, 3);
  const double m = std::pow(c.l - 0.1055613458 * c.a - 0.0638541728 * c.b, 3);
  const double s = std::pow(c.l - 0.0894841775 * c.a - 1.2914855480 * c.b, 3);
  return {4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
          -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
          -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s};
}

bool shown(Lab c) {
  for (const double v : linear(c)) {
    if (v < -1e-4 || v > 1.0001)
      return false;
  }
  return true;
}

// Value between the stops of a table, evenly spaced over 0..1.
template <std::size_t N>
double between(const std::array<double, N>& stops, double at) {
  const double x = std::clamp(at, 0.0, 1.0) * (N - 1);
  const auto i = std::min(std::size_t(x), N - 2);
  return stops[i] + (x - double(i)) * (stops[i + 1] - stops[i]);
}

// A background: its colour under dark text and the one of the same hue under light text, as sRGB
// can show them.
struct Candidate {
  double lightness, chroma, hue;
  Lab light, dark;
  // squared distance to what has been taken, in the scheme where it is closer
  double nearest = 1e9;
};

double in_gamut(double lightness, double chroma, double hue) {
  while (chroma > 0.002 && !shown(lab(lightness, chroma, hue)))
    chroma -= 0.002;
  return chroma;
}

double dark_lightness(double light) {
  return 0.335 + 0.95 * (0.90 - light);
}

double apart(Lab a, Lab b) {  // lightness counts less: patches of text differ in it anyway
  const double l = 0.8 * (a.l - b.l);
  return l * l + (a.a - b.a) * (a.a - b.a) + (a.b - b.b) * (a.b - b.b);
}

std::vector<Candidate> candidates() {
  std::vector<Candidate> out;
  for (const double lightness : {0.90, 0.81, 0.71}) {
    for (const double chroma : {0.14, 0.09, 0.045}) {
      for (int hue = 0; hue < 360; hue += 6) {
        if (const Lab c = lab(lightness, chroma, hue); shown(c)) {
          const double low = dark_lightness(lightness);
          out.push_back(
              {lightness, chroma, double(hue), c, lab(low, in_gamut(low, chroma, hue), hue)});
        }
      }
    }
  }
  return out;
}

}  // namespace

Rgb oklch(double lightness, double chroma, double hue) {
  Rgb out{};
  const auto rgb = linear(lab(lightness, in_gamut(lightness, chroma, hue), hue));
  for (int i = 0; i < 3; ++i) {
    const double v = std::clamp(rgb[i], 0.0, 1.0);
    out[i] = std::uint8_t(
        std::lround(255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * std::pow(v, 1 / 2.4) - 0.055)));
  }
  return out;
}

std::string hex(Rgb c) {
  return fmt::format("#{:02x}{:02x}{:02x}", c[0], c[1], c[2]);
}

Rgb sequential(double at) {
  static constexpr std::array<double, 6> hue{292, 272, 238, 190, 150, 105};
  static constexpr std::array<double, 6> chroma{.085, .115, .105, .105, .14, .17};
  return oklch(0.22 + 0.70 * std::clamp(at, 0.0, 1.0), between(chroma, at), between(hue, at));
}

Rgb diverging(double at) {
  const double off = std::abs(at - 0.5) * 2;
  return oklch(0.965 - 0.50 * off, 0.19 * std::pow(off, 0.9), at < 0.5 ? 252 : 32);
}

double luminance(Rgb c) {
  return (0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]) / 255;
}

Rgb series(int i, bool dark) {
  static constexpr std::array<double, 8> hue{245, 50, 160, 345, 95, 205, 295, 20};
  static constexpr std::array<double, 8> lift{0, .05, .02, .0, .12, .10, .0, -.06};
  return oklch((dark ? 0.70 : 0.56) + lift[i % 8], 0.13, hue[i % 8]);
}

int xterm(Rgb c) {
  const auto step = [](int v) {
    return v < 48 ? 0 : v < 115 ? 1 : (v - 35) / 40;
  };
  return 16 + 36 * step(c[0]) + 6 * step(c[1]) + step(c[2]);
}

// Farthest-point sampling: each next colour is the candidate farthest from all taken. Distances are
// rounded, so that the last bit of a cosine decides nothing.
Backgrounds expert_backgrounds(int experts) {
  std::vector<Candidate> all = candidates();
  Backgrounds out;
  std::size_t take = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].lightness == 0.81 && all[i].chroma == 0.09 && all[i].hue == 252)
      take = i;
  }
  for (int e = 0; e < std::min(experts, expert_colours); ++e) {
    const Candidate taken = all[take];
    out.light.push_back(oklch(taken.lightness, taken.chroma, taken.hue));
    out.dark.push_back(oklch(dark_lightness(taken.lightness), taken.chroma, taken.hue));
    for (Candidate& c : all) {
      c.nearest = std::min(c.nearest, std::round(1e7 * std::min(apart(c.light, taken.light),
                                                                apart(c.dark, taken.dark))));
    }
    take = std::size_t(std::max_element(all.begin(), all.end(),
                                        [](auto& a, auto& b) { return a.nearest < b.nearest; }) -
                       all.begin());
  }
  return out;
}

}  // namespace moe::drawing
