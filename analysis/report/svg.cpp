#include "analysis/report/svg.h"

#include <cmath>

#include <fmt/format.h>

#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

double text_width(std::string_view s) {
  return 6.3 * columns(s);
}  // of the 11 px labels

// what a mark says when pointed at
std::string marked(const Table& t, const Column& c, std::size_t r) {
  const std::string by = chance_beside(c, r, true);
  const std::string range = interval_cell(c, r);
  return html(concat(t.columns[0].name, " ", cell(t.columns[0], r), ": ", c.name, " ", cell(c, r),
                     c.unit.empty() ? "" : " " + c.unit,
                     range.empty() ? "" : concat(", ", range_word(c), " ", range),
                     by.empty() ? "" : " (" + by + ")"));
}

// The frame of a chart with a vertical axis of values.
struct Frame {
  Size size;
  Axis axis;
  double left = 46, right = 8, top = 10, bottom = 34;
  std::string out{};

  double x(double at) const {
    return left + at * (size.width - left - right);
  }  // 0..1
  double y(double v) const {
    return size.height - bottom -
           (v - axis.low) / (axis.high - axis.low) * (size.height - bottom - top);
  }
  double span() const {
    return size.width - left - right;
  }

  void begin(const std::string& label) {
    double widest = 0;
    for (const double t : axis.ticks)
      widest = std::max(widest, text_width(short_number(t)));
    left = widest + 12;
    out = fmt::format("<svg class=chart viewBox=\"0 0 {} {}\" role=img aria-label=\"{}\">",
                      size.width, size.height, html(label));
    for (const double t : axis.ticks) {
      const bool zero = std::abs(t) < 1e-12;
      out += fmt::format(
          "<path class={} d=\"M{:.1f} {:.1f}H{}\"/><text class=tick x={:.1f} y={:.1f} "
          "text-anchor=end>{}</text>",
          zero ? "base" : "grid", left, y(t), size.width - right, left - 6, y(t) + 3.6,
          short_number(t));
    }
  }

  // Labels of the x axis, as many as fit without touching.
  void names(const Column& c, std::size_t n, bool inside) {
    double widest = 8;
    for (std::size_t r = 0; r < n; ++r)
      widest = std::max(widest, text_width(clip(cell(c, r), 14, false)) + 10);
    const double room = span() / double(n);
    const auto every = std::size_t(std::max(1.0, std::ceil(widest / room)));
    for (std::size_t r = 0; r < n; r += every) {
      out += fmt::format("<text class=tick x={:.1f} y={} text-anchor=middle>{}</text>",
                         middle(r, n, inside), size.height - bottom + 15,
                         html(clip(cell(c, r), 14, false)));
    }
    out += fmt::format("<text class=name x={:.1f} y={} text-anchor=middle>{}</text>", x(0.5),
                       size.height - 4, html(heading(c)));
  }
  // of a band, or of a point on an axis from end to end
  double middle(std::size_t r, std::size_t n, bool inside) const {
    if (inside)
      return x((double(r) + 0.5) / double(n));
    return n < 2 ? x(0.5) : x(0.02 + 0.96 * double(r) / double(n - 1));
  }
  std::string end() {
    return std::move(out) + "</svg>";
  }
};

// The same chance everywhere is a line with its value, else NaN.
double constant_chance(const Panel& p, std::size_t n) {
  const double first = chance(*p.series[0], 0);
  for (const Column* c : p.series) {
    for (std::size_t r = 0; r < n; ++r) {
      if (!(std::abs(chance(*c, r) - first) <= 1e-9 * std::abs(first)))
        return std::nan("");
    }
  }
  return first;
}

void chance_line(Frame& f, double v, int after) {
  f.out += fmt::format("<path class=chance d=\"M{:.1f} {:.1f}H{}\"><title>chance {}</title></path>",
                       f.left, f.y(v), f.size.width - f.right, html(number(v, after)));
}

// Whiskers over the 95 % interval of one figure: along the values from `low` to `high` (pixels) at
// `at` across them. "" = none.
std::string error_bar(const Column& c, std::size_t r, const auto& place, double at, double cap,
                      bool across) {
  const std::string says = interval_cell(c, r);
  if (says.empty() || !std::isfinite(c.low[r]) || !std::isfinite(c.high[r]))
    return "";
  const double low = place(c.low[r]);
  const double high = place(c.high[r]);
  const std::string d =
      across
          ? fmt::format("M{0:.1f} {2:.1f}v{4:.1f}M{1:.1f} {2:.1f}v{4:.1f}M{0:.1f} {3:.1f}H{1:.1f}",
                        low, high, at - cap, at, 2 * cap)
          : fmt::format("M{2:.1f} {0:.1f}h{4:.1f}M{2:.1f} {1:.1f}h{4:.1f}M{3:.1f} {0:.1f}V{1:.1f}",
                        low, high, at - cap, at, 2 * cap);
  return fmt::format("<path class=error d=\"{}\"><title>{} {}, {} {}{}</title></path>", d,
                     html(c.name), html(cell(c, r)), range_word(c), html(says),
                     inside_chance(c, r) ? ", holds chance " + html(chance_cell(c, r)) : "");
}

void put_bar(Frame& f, double x, double width, double v, int series, const std::string& title) {
  if (std::isnan(v))
    return;
  const double base = f.y(std::clamp(0.0, f.axis.low, f.axis.high));
  const double to = std::isinf(v) ? f.y(v > 0 ? f.axis.high : f.axis.low) : f.y(v);
  f.out += fmt::format(
      "<rect class=\"m s{}\" x={:.1f} y={:.1f} width={:.1f} height={:.1f} "
      "rx={}><title>{}</title></rect>",
      series % 8, x, std::min(base, to), width, std::max(0.5, std::abs(base - to)),
      width > 6 ? 1.5 : 0.0, title);
  if (std::isinf(v)) {
    f.out += fmt::format("<text class=inf x={:.1f} y={:.1f} text-anchor=middle>∞</text>",
                         x + width / 2, to + 12);
  }
}

}  // namespace

bool lying(const Table& t) {
  if (t.columns.empty() || is_number(t.columns[0]) || rows(t) > 40)
    return false;
  int longest = 0;
  for (std::size_t r = 0; r < rows(t); ++r)
    longest = std::max(longest, columns(cell(t.columns[0], r)));
  return longest > 10;
}

namespace {

// A stroke at the chance value of one bar.
std::string chance_stroke(const Column& c, std::size_t r, const std::string& path) {
  return fmt::format("<path class=chance d=\"{}\"><title>chance {}</title></path>", path,
                     html(chance_cell(c, r)));
}

// The interval of a bar, and its chance value where that is not one line for all.
void put_marks(Frame& f, const Column& c, std::size_t r, double x, double width, bool stroke) {
  const auto y = [&](double v) {
    return f.y(v);
  };
  f.out += error_bar(c, r, y, x + width / 2, std::min(4.0, width / 3), false);
  if (const double by = chance(c, r); stroke && std::isfinite(by)) {
    f.out += chance_stroke(c, r, fmt::format("M{:.1f} {:.1f}h{:.1f}", x - 1.5, f.y(by), width + 2));
  }
}

}  // namespace

std::string bar_chart(const Table& t, const Panel& p, Size size) {
  const std::size_t n = rows(t);
  const std::size_t groups = p.series.size();
  Frame f{size, axis_of(p, true)};
  f.begin(t.title + ": " + heading(*p.series[0]));
  const double band = f.span() / double(n);
  const double width = std::min(46.0, band * (band > 5 ? 0.78 : 1.0) / double(groups));
  const double steady = constant_chance(p, n);
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t s = 0; s < groups; ++s) {
      const double x = f.middle(r, n, true) + (double(s) - double(groups) / 2) * width;
      put_bar(f, x, std::max(0.8, width - (width > 5 ? 1 : 0)), value(*p.series[s], r), int(s),
              marked(t, *p.series[s], r));
      put_marks(f, *p.series[s], r, x, width, std::isnan(steady));
    }
  }
  if (std::isfinite(steady))
    chance_line(f, steady, digits(*p.series[0]));
  f.names(t.columns[0], n, true);
  return f.end();
}

namespace {

struct RowFrame {  // of bars that lie, a row of the table each
  RowFrame(const Table& table, const Panel& p, int w)
      : t(table), axis(axis_of(p, true)), groups(p.series.size()), width(w) {
    double names = 0;
    // arrows are broad
    for (std::size_t r = 0; r < rows(t); ++r)
      names = std::max(names, 7.6 * columns(clip(cell(t.columns[0], r), 28, false)));
    left = names + 14;
    thick = groups > 1 ? 10 : 15;
    band = thick * double(groups) + 8;
    height = top + band * double(rows(t)) + 22;
  }
  double x(double v) const {
    return left + (v - axis.low) / (axis.high - axis.low) * (width - left - 56);
  }
  std::string begin() const {
    std::string out =
        fmt::format("<svg class=chart viewBox=\"0 0 {} {:.0f}\" role=img aria-label=\"{}\">", width,
                    height, html(t.title));
    for (const double v : axis.ticks) {
      out += fmt::format(
          "<path class={} d=\"M{:.1f} {}V{:.1f}\"/><text class=tick x={:.1f} y={:.1f} "
          "text-anchor=middle>{}</text>",
          std::abs(v) < 1e-12 ? "base" : "grid", x(v), top, height - 20, x(v), height - 6,
          short_number(v));
    }
    return out;
  }
  std::string bar(const Column& c, std::size_t r, std::size_t s, double at) const {
    const double v = value(c, r);
    if (std::isnan(v))
      return "";
    const double from = x(std::clamp(0.0, axis.low, axis.high));
    const double to = std::isinf(v) ? x(v > 0 ? axis.high : axis.low) : x(v);
    std::string out = fmt::format(
        "<rect class=\"m s{}\" x={:.1f} y={:.1f} width={:.1f} height={:.1f} "
        "rx=1.5><title>{}</title></rect>",
        s % 8, std::min(from, to), at, std::max(0.5, std::abs(to - from)), thick - 1,
        marked(t, c, r));
    const auto along = [&](double bound) {
      return x(bound);
    };
    const std::string whiskers = error_bar(c, r, along, at + thick / 2 - 0.5, 3, true);
    const double end = std::max({from, to, whiskers.empty() ? from : x(c.high[r])});
    out += whiskers + fmt::format("<text class=tick x={:.1f} y={:.1f}>{}</text>", end + 5,
                                  at + thick / 2 + 3.4, html(cell(c, r)));
    if (const double by = chance(c, r); std::isfinite(by)) {
      out += chance_stroke(c, r, fmt::format("M{:.1f} {:.1f}v{:.1f}", x(by), at - 2, thick + 3));
    }
    return out;
  }

  const Table& t;
  Axis axis;
  std::size_t groups;
  int width;
  double left = 0, thick = 0, band = 0, height = 0;
  static constexpr double top = 6;
};

}  // namespace

std::string row_bars(const Table& t, const Panel& p, int width) {
  const RowFrame f(t, p, width);
  std::string out = f.begin();
  for (std::size_t r = 0; r < rows(t); ++r) {
    const double y = RowFrame::top + f.band * double(r) + 4;
    out += fmt::format("<text class=row x={:.1f} y={:.1f} text-anchor=end>{}</text>", f.left - 8,
                       y + f.thick * double(f.groups) / 2 + 4,
                       html(clip(cell(t.columns[0], r), 28, false)));
    for (std::size_t s = 0; s < f.groups; ++s)
      out += f.bar(*p.series[s], r, s, y + f.thick * double(s));
  }
  return out + "</svg>";
}

namespace {

struct Pen {  // a line with gaps where there is no value
  std::string path;
  bool down = false;
  void to(bool draw, double x, double y) {
    if (draw)
      path += fmt::format("{}{:.1f} {:.1f}", down ? "L" : "M", x, y);
  }
};

bool bounded(const Column& c, std::size_t r) {
  return !interval_cell(c, r).empty() && std::isfinite(c.low[r]) && std::isfinite(c.high[r]);
}

// The interval at a point without neighbours that have one; bands show the others.
bool stands_alone(const Column& c, std::size_t r) {
  return !(r > 0 && bounded(c, r - 1)) && !bounded(c, r + 1);
}

// What stands at one point of a line: its dot, with the interval where no band has it, or the sign
// of infinity.
std::string point(const Table& t, const Frame& f, const Column& c, std::size_t r, std::size_t s) {
  const std::size_t n = rows(t);
  const double v = value(c, r);
  const double x = f.middle(r, n, false);
  if (std::isinf(v)) {
    return fmt::format(
        "<text class=inf x={:.1f} y={:.1f} text-anchor=middle>∞<title>{}</title></text>", x,
        f.y(v > 0 ? f.axis.high : f.axis.low) + 4, marked(t, c, r));
  }
  if (std::isnan(v) || n > 160)
    return "";
  const auto y = [&](double to) {
    return f.y(to);
  };
  return fmt::format("<circle class=\"m s{}\" cx={:.1f} cy={:.1f} r={}><title>{}</title></circle>",
                     s % 8, x, f.y(v), n <= 40 ? 3 : 2, marked(t, c, r)) +
         (stands_alone(c, r) ? error_bar(c, r, y, x, n <= 40 ? 4 : 2, false) : "");
}

// The 95 % intervals of neighbouring points as one area.
std::string bands(const Frame& f, const Column& c, std::size_t s) {
  const std::size_t n = rows(c);
  std::string out;
  for (std::size_t first = 0; first < n;) {
    std::size_t last = first;
    while (last < n && bounded(c, last))
      ++last;
    if (last - first > 1) {
      std::string d;
      for (std::size_t r = first; r < last; ++r)
        d += fmt::format("{}{:.1f} {:.1f}", r > first ? "L" : "M", f.middle(r, n, false),
                         f.y(c.low[r]));
      for (std::size_t r = last; r-- > first;)
        d += fmt::format("L{:.1f} {:.1f}", f.middle(r, n, false), f.y(c.high[r]));
      out += fmt::format("<path class=\"band s{}\" d=\"{}Z\"><title>{}</title></path>", s % 8, d,
                         c.extremes ? range_word(c) : "95 % intervals");
    }
    first = std::max(last, first + 1);
  }
  return out;
}

}  // namespace

std::string line_chart(const Table& t, const Panel& p, Size size) {
  const std::size_t n = rows(t);
  Frame f{size, axis_of(p, false)};
  f.begin(t.title + ": " + heading(*p.series[0]));
  const double steady = constant_chance(p, n);
  if (std::isfinite(steady))
    chance_line(f, steady, digits(*p.series[0]));
  for (std::size_t s = 0; s < p.series.size(); ++s) {
    const Column& c = *p.series[s];
    Pen line, by_chance;
    std::string dots;
    for (std::size_t r = 0; r < n; ++r) {
      const double v = value(c, r);
      const double by = chance(c, r);
      const double x = f.middle(r, n, false);
      line.to(std::isfinite(v), x, f.y(v));
      by_chance.to(std::isnan(steady) && std::isfinite(by), x, f.y(by));
      dots += point(t, f, c, r, s);
      line.down = std::isfinite(v);
      by_chance.down = std::isfinite(by);
    }
    if (!by_chance.path.empty()) {
      f.out +=
          fmt::format("<path class=chance d=\"{}\"><title>chance</title></path>", by_chance.path);
    }
    f.out += bands(f, c, s);
    if (!line.path.empty())
      f.out += fmt::format("<path class=\"line s{}\" d=\"{}\"/>", s % 8, line.path);
    f.out += dots;
  }
  f.names(t.columns[0], n, false);
  return f.end();
}

}  // namespace moe::drawing
