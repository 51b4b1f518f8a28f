// Maps: few cells as rectangles that carry their own tooltips and, where there is room, their
// numbers; many as a picture.
#include <cmath>

#include <fmt/format.h>

#include "analysis/report/png.h"
#include "analysis/report/svg.h"
#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

constexpr std::size_t most_rectangles = 640;

Rgb paint(const Map& m, double at) {
  return m.diverging ? diverging(at) : sequential(at);
}

struct Place {  // of the cells
  double left, top, width, height;
  std::size_t rows, cols;
  double w() const {
    return width / double(cols);
  }
  double h() const {
    return height / double(rows);
  }
};

std::string title_of(const Map& m, const Grid& g, std::size_t r, std::size_t c) {
  const std::size_t at = r * g.col.size() + c;
  const double by = g.chance[at];
  return html(concat(m.row, " ", g.row[r], ", ", m.col, " ", g.col[c], ": ",
                     number(g.at(r, c), digits(*m.value)),
                     std::isnan(by) ? ""
                                    : concat(" (", g.pooled == 1 && g.inside[at] ? "≈ " : "",
                                             "chance ", number(by, digits(*m.value)), ")")));
}

std::string rectangles(const Map& m, const Grid& g, const Place& p) {
  std::string out;
  const double gap = p.w() > 10 && p.h() > 10 ? 1.5 : 0;
  int widest = 0;
  for (const double v : g.value)
    widest = std::max(widest, columns(number(v, digits(*m.value))));
  const bool numbers = widest * 6.0 + 6 <= p.w() && p.h() >= 15;
  for (std::size_t r = 0; r < p.rows; ++r) {
    for (std::size_t c = 0; c < p.cols; ++c) {
      const double v = g.at(r, c);
      const double x = p.left + p.w() * double(c);
      const double y = p.top + p.h() * double(r);
      const Rgb colour = std::isnan(v) ? Rgb{128, 128, 128} : paint(m, position(m, v));
      const std::string fill =
          std::isnan(v) ? "class=none" : fmt::format("fill=\"{}\"", hex(colour));
      out += fmt::format(
          "<rect {} x={:.1f} y={:.1f} width={:.1f} height={:.1f} rx={}><title>{}</title></rect>",
          fill, x, y, p.w() - gap, p.h() - gap, gap, title_of(m, g, r, c));
      if (numbers && !std::isnan(v)) {
        out += fmt::format("<text class={} x={:.1f} y={:.1f}>{}</text>",
                           luminance(colour) > 0.45 ? "vd" : "vl", x + (p.w() - gap) / 2,
                           y + (p.h() - gap) / 2 + 3.4, html(number(v, digits(*m.value))));
      }
    }
  }
  return out;
}

// Pictures of so many cells have so many colours: more could not be told apart in cells that small,
// and double the bytes of the picture.
constexpr std::size_t many_cells = 16384;
constexpr int all_colours = 255, few_colours = 33;

std::string picture(const Map& m, const Grid& g, const Place& p) {
  const int last = (g.value.size() > many_cells ? few_colours : all_colours) - 1;
  std::vector<Rgb> palette;
  for (int i = 0; i <= last; ++i)
    palette.push_back(paint(m, double(i) / last));
  palette.push_back({128, 128, 128});  // no value
  std::vector<std::uint8_t> cells;
  for (const double v : g.value) {
    cells.push_back(
        std::uint8_t(std::isnan(v) ? last + 1 : int(std::lround(last * position(m, v)))));
  }
  return fmt::format(
      "<image class=map x={:.1f} y={:.1f} width={:.1f} height={:.1f} preserveAspectRatio=none "
      "href=\"{}\"/>",
      p.left, p.top, p.width, p.height, data_uri(png(cells, p.rows, p.cols, palette)));
}

std::string labels(const Map& m, const Grid& g, const Place& p) {
  std::string out;
  double widest = 8;
  for (const std::string& c : g.col)
    widest = std::max(widest, 6.3 * columns(clip(c, 12, false)) + 6);
  const auto across = std::size_t(std::max(1.0, std::ceil(widest / p.w())));
  const auto down = std::size_t(std::max(1.0, std::ceil(13 / p.h())));
  for (std::size_t c = 0; c < p.cols; c += across) {
    out += fmt::format("<text class=tick x={:.1f} y={:.1f} text-anchor=middle>{}</text>",
                       p.left + p.w() * (double(c) + 0.5), p.top + p.height + 14,
                       html(clip(g.col[c], 12, false)));
  }
  for (std::size_t r = 0; r < p.rows; r += down) {
    out += fmt::format("<text class=tick x={:.1f} y={:.1f} text-anchor=end>{}</text>", p.left - 7,
                       p.top + p.h() * (double(r) + 0.5) + 3.6, html(clip(g.row[r], 16, false)));
  }
  out += fmt::format("<text class=name x={:.1f} y={:.1f} text-anchor=middle>{}</text>",
                     p.left + p.width / 2, p.top + p.height + 31, html(m.col));
  return out + fmt::format("<text class=name x=0 y=10>{}</text>", html(m.row));
}

// Square where rows and columns are the same things.
Place place_of(const Grid& g, int width) {
  Place p{0, 17, 0, 0, g.row.size(), g.col.size()};
  double widest = 0;
  for (const std::string& r : g.row)
    widest = std::max(widest, 6.3 * columns(clip(r, 16, false)));
  p.left = widest + 12;
  const double room = width - p.left - 4;
  if (g.row == g.col) {
    p.width = std::min(std::min(room, 640.0) / double(p.cols), 26.0) * double(p.cols);
    p.height = p.width;
    return p;
  }
  const double w = std::min(room / double(p.cols), 62.0);
  const double h = std::clamp(std::min(w * 0.62, 420.0 / double(p.rows)),
                              std::min(5.0, 900.0 / double(p.rows)), 27.0);
  p.width = w * double(p.cols);
  p.height =
      std::max(h, p.rows * p.cols > most_rectangles && p.rows > 24 ? 3.0 : 14.0) * double(p.rows);
  return p;
}

}  // namespace

std::string map_chart(const Map& m, const Grid& whole, const std::string& hover, int width) {
  const Grid g = pooled(whole, 512, 512);
  const Place p = place_of(g, width);
  const double total = p.left + p.width + 4;
  const double height = p.top + p.height + 36;
  const bool few = p.rows * p.cols <= most_rectangles;
  std::string out = fmt::format(
      "<svg class=chart style=\"max-width:{:.0f}px{}\" viewBox=\"0 0 {:.0f} {:.0f}\" role=img "
      "aria-label=\"{}\"",
      total, p.w() >= 36 && width > 600 ? fmt::format(";min-width:{:.0f}px", 0.85 * total) : "",
      total, height, html(concat(heading(*m.value), g.facet.empty() ? "" : ", " + g.facet)));
  if (!few && g.pooled == 1)
    out += hover;
  out += ">" + labels(m, g, p) + (few ? rectangles(m, g, p) : picture(m, g, p)) + "</svg>";
  if (g.pooled > 1) {
    out +=
        fmt::format("<p class=note>Each cell is the largest of {} × {}.</p>", g.pooled, g.pooled);
  }
  return out;
}

std::string map_scale(const Map& m, const std::string& id) {
  const double left = 8;
  const double width = 220;
  std::string out = fmt::format(
      "<svg class=scale viewBox=\"0 0 {} 40\" width={} height=40 role=img aria-label=\"colour "
      "scale\"><defs><linearGradient id=\"{}\">",
      left * 2 + width, left * 2 + width, html(id));
  for (int i = 0; i <= 16; ++i) {
    out +=
        fmt::format("<stop offset={:.4f} stop-color=\"{}\"/>", i / 16.0, hex(paint(m, i / 16.0)));
  }
  out += fmt::format(
      "</linearGradient></defs><rect x={} y=12 width={} height=10 rx=2 fill=\"url(#{})\"/>", left,
      width, html(id));
  const auto text = [&](double v) {
    return html(number(v, digits(*m.value)));
  };
  out += fmt::format(
      "<text class=tick x=0 y=36>{}</text><text class=tick x={} y=36 text-anchor=end>{}</text>",
      text(m.low), left * 2 + width, text(m.high));
  if (std::isfinite(m.chance)) {
    const double x = left + width * position(m, m.chance);
    out += fmt::format(
        "<path class=mark d=\"M{:.1f} 9v16\"/><text class=tick x={:.1f} y=7 text-anchor={}>chance "
        "{}</text>",
        x, x,
        x < 50    ? "start"
        : x > 186 ? "end"
                  : "middle",
        text(m.chance));
  }
  return out + "</svg>";
}

}  // namespace moe::drawing
