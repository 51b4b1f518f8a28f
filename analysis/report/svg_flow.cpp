// A flow: a column of blocks for each end of a step, ribbons between them.
#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "analysis/report/svg.h"
#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

constexpr double block_width = 13;
constexpr double gap = 5;  // between the blocks of a column
constexpr double top = 22;
constexpr double tallest = 300;  // of all blocks of a column together
constexpr double name_room = 34;

struct Ribbon {
  std::size_t from, to;  // blocks of their columns
  std::size_t row;       // of the table
  double share;
};

struct Block {
  std::string name;
  double in = 0, out = 0;  // shares that come and go
  double y = 0;
  double share() const {
    return std::max(in, out);
  }
};

using Blocks = std::vector<Block>;

std::size_t block_of(Blocks& all, const std::string& name) {
  const auto at = std::ranges::find(all, name, &Block::name);
  if (at != all.end())
    return std::size_t(at - all.begin());
  all.push_back({name});
  return all.size() - 1;
}

struct Flow {
  std::vector<std::string> layer;            // name of each column
  std::vector<Blocks> column;                // (steps + 1)
  std::vector<std::vector<Ribbon>> ribbons;  // (steps)
};

// "3→4" names the columns 3 and 4.
std::pair<std::string, std::string> ends_of(const std::string& step) {
  constexpr std::string_view arrow = "→";
  const auto at = step.find(arrow);
  if (at == step.npos)
    return {step, ""};
  return {step.substr(0, at), step.substr(at + arrow.size())};
}

Flow flow_of(const Table& t) {
  Flow f;
  std::string last;
  for (std::size_t r = 0; r < rows(t); ++r) {
    const std::string step = cell(t.columns[0], r);
    if (f.ribbons.empty() || step != last) {
      const auto [from, to] = ends_of(step);
      if (f.layer.empty()) {
        f.layer.push_back(from);
        f.column.emplace_back();
      }
      f.layer.push_back(to);
      f.column.emplace_back();
      f.ribbons.emplace_back();
      last = step;
    }
    Blocks& left = f.column[f.column.size() - 2];
    Blocks& right = f.column.back();
    const double share = value(t.columns[3], r);
    const std::size_t a = block_of(left, cell(t.columns[1], r));
    const std::size_t b = block_of(right, cell(t.columns[2], r));
    left[a].out += share;
    right[b].in += share;
    f.ribbons.back().push_back({a, b, r, share});
  }
  return f;
}

// "others" stands last, experts in the order of their ids.
void place(Blocks& blocks) {
  double y = top;
  for (Block& b : blocks) {
    b.y = y;
    y += b.share() * tallest + gap;
  }
}

double height_of(const Flow& f) {
  double most = 0;
  for (const Blocks& c : f.column)
    most = std::max(most, c.back().y + c.back().share() * tallest);
  return most + 12;
}

// As wide as if the layers ignored each other, or narrower.
bool faded(const Table& t, std::size_t row) {
  return inside_chance(t.columns[4], row) || !(value(t.columns[4], row) > 1);
}

std::string ribbon(double x0, double y0, double x1, double y1, double width) {
  const double middle = (x0 + x1) / 2;
  return fmt::format(
      "M{0:.1f} {1:.1f}C{4:.1f} {1:.1f} {4:.1f} {3:.1f} {2:.1f} {3:.1f}v{5:.1f}C{4:.1f} {7:.1f} "
      "{4:.1f} {6:.1f} {0:.1f} {6:.1f}z",
      x0, y0, x1, y1, middle, width, y0 + width, y1 + width);
}

struct Drawing {
  const Table& t;
  Flow f;
  double pitch;  // from column to column
  std::string faint{}, strong{};

  double x(std::size_t column) const {
    return name_room + pitch * double(column);
  }
  std::string says(const Ribbon& one) const {
    return html(concat(cell(t.columns[0], one.row), ": ", cell(t.columns[1], one.row), " to ",
                       cell(t.columns[2], one.row), ", ", cell(t.columns[3], one.row),
                       " of the tokens, ", cell(t.columns[4], one.row),
                       "x of what independent layers give"));
  }
  // Faded ones lie under the others.
  void draw_step(std::size_t s) {
    Blocks& left = f.column[s];
    Blocks& right = f.column[s + 1];
    std::vector<double> out(left.size(), 0);
    std::vector<double> in(right.size(), 0);
    for (const Ribbon& one : f.ribbons[s]) {
      const double width = one.share * tallest;
      const double y0 = left[one.from].y + out[one.from];
      const double y1 = right[one.to].y + in[one.to];
      out[one.from] += width;
      in[one.to] += width;
      if (width < 0.2)
        continue;
      const bool faint_one = faded(t, one.row);
      (faint_one ? faint : strong) +=
          fmt::format("<path class=\"ribbon s{}{}\" d=\"{}\"><title>{}</title></path>",
                      one.from % 8, faint_one ? " faded" : "",
                      ribbon(x(s) + block_width, y0, x(s + 1), y1, width), says(one));
    }
  }
  std::string blocks() const {
    std::string out;
    for (std::size_t c = 0; c < f.column.size(); ++c) {
      out += fmt::format("<text class=name x={:.1f} y=12 text-anchor=middle>{}</text>",
                         x(c) + block_width / 2, html(concat("layer ", f.layer[c])));
      for (std::size_t i = 0; i < f.column[c].size(); ++i) {
        const Block& b = f.column[c][i];
        const double height = std::max(0.6, b.share() * tallest);
        out += fmt::format(
            "<rect class=\"m s{}\" x={:.1f} y={:.1f} width={:.1f} height={:.1f} rx=1.5><title>{}"
            "</title></rect>",
            i % 8, x(c), b.y, block_width, height,
            html(concat("layer ", f.layer[c], ", ", b.name, ": ", number(b.share(), 4),
                        " of the tokens")));
        if (height >= 9) {
          const bool last = c + 1 == f.column.size();  // names of the others stand before them
          out += fmt::format("<text class=\"tick over\" x={:.1f} y={:.1f} text-anchor={}>{}</text>",
                             last ? x(c) + block_width + 3 : x(c) - 3, b.y + height / 2 + 3.6,
                             last ? "start" : "end", html(clip(b.name, 6, false)));
        }
      }
    }
    return out;
  }
};

}  // namespace

std::string flow_chart(const Table& t, int width) {
  Flow f = flow_of(t);
  for (Blocks& c : f.column)
    place(c);
  const std::size_t steps = f.ribbons.size();
  const double pitch = std::min(260.0, (width - 2 * name_room - block_width) / double(steps));
  const double across = name_room + pitch * double(steps) + block_width + name_room;
  const double height = height_of(f);
  Drawing d{t, std::move(f), pitch};
  for (std::size_t s = 0; s < steps; ++s)
    d.draw_step(s);
  return fmt::format(
      "<svg class=chart style=\"max-width:{0:.0f}px\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=img "
      "aria-label=\"{2}\">{3}{4}{5}</svg>",
      across, height, html(t.title), d.faint, d.strong, d.blocks());
}

}  // namespace moe::drawing
