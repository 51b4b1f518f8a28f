// A line of all layers without axes, with the chance value of each as a dashed one.
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "analysis/report/svg.h"
#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

constexpr double width = 220;
constexpr double height = 44;
constexpr double margin = 4;

struct Scale {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void see(double v) {
    if (!std::isfinite(v))
      return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  double y(double v) const {
    const double at = high > low ? (v - low) / (high - low) : 0.5;
    return height - margin - std::clamp(at, 0.0, 1.0) * (height - 2 * margin);
  }
};

double chance_at(const Tile& t, std::size_t layer) {
  if (t.chance.size() == 1)
    return t.chance[0];
  return layer < t.chance.size() ? t.chance[layer] : std::nan("");
}

double x(std::size_t layer, std::size_t layers) {
  const double at = layers < 2 ? 0.5 : double(layer) / double(layers - 1);
  return margin + at * (width - 2 * margin);
}

template <class Value>
std::string path(const Scale& s, std::size_t n, const Value& value) {
  std::string out;
  bool down = false;
  for (std::size_t l = 0; l < n; ++l) {
    const double v = value(l);
    if (std::isfinite(v))
      out += fmt::format("{}{:.1f} {:.1f}", down ? "L" : "M", x(l, n), s.y(v));
    down = std::isfinite(v);
  }
  return out;
}

}  // namespace

std::string spark_chart(const Tile& t) {
  const std::size_t n = t.by_layer.size();
  Scale s;
  std::size_t worst = n;
  for (std::size_t l = 0; l < n; ++l) {
    s.see(t.by_layer[l]);
    s.see(chance_at(t, l));
    const double v = t.by_layer[l];
    if (std::isfinite(v) &&
        (worst == n || (t.low_is_bad ? v < t.by_layer[worst] : v > t.by_layer[worst])))
      worst = l;
  }
  std::string out =
      fmt::format("<svg class=\"chart spark\" viewBox=\"0 0 {} {}\" role=img aria-label=\"{}\">",
                  width, height, html(concat(t.name, " by layer")));
  if (s.low > s.high)
    return out + "</svg>";
  out += fmt::format("<path class=chance d=\"{}\"/>",
                     path(s, n, [&](std::size_t l) { return chance_at(t, l); }));
  out += fmt::format("<path class=\"line s0\" d=\"{}\"/>",
                     path(s, n, [&](std::size_t l) { return t.by_layer[l]; }));
  if (worst < n) {
    out += fmt::format("<circle class=worst cx={:.1f} cy={:.1f} r=3.5 />", x(worst, n),
                       s.y(t.by_layer[worst]));
  }
  return out + "</svg>";
}

}  // namespace moe::drawing
