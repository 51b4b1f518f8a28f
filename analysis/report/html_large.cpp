// Maps too large to stand on the page as numbers: how their values are distributed, and the largest
// of them. The csv report has every value.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/report/page.h"
#include "analysis/report/svg.h"

namespace moe::drawing {
namespace {

constexpr std::size_t bins = 40;

bool itself(const Grid& g, std::size_t cell) {
  return g.row == g.col && cell / g.col.size() == cell % g.col.size();
}

// finite; a thing against itself says nothing about the rest
std::vector<double> values_of(const Map& m) {
  std::vector<double> out;
  for (const Grid& g : m.grids) {
    for (std::size_t i = 0; i < g.value.size(); ++i) {
      if (std::isfinite(g.value[i]) && !itself(g, i))
        out.push_back(g.value[i]);
    }
  }
  return out;
}

template <class T>
std::vector<T> picked(const std::vector<T>& from, const std::vector<std::size_t>& order) {
  if (from.size() < 2)
    return from;  // none, or one for all rows
  std::vector<T> out;
  for (const std::size_t r : order)
    out.push_back(r < from.size() ? from[r] : T{});
  return out;
}

}  // namespace

Table largest_first(const Table& t, const Map& m, std::size_t most) {
  const std::size_t k = std::max<std::size_t>(2, std::size_t(m.value - t.columns.data()));
  const Column& a = t.columns[k - 2];
  const Column& b = t.columns[k - 1];
  const bool square = !m.grids.empty() && m.grids[0].row == m.grids[0].col;
  std::vector<std::size_t> order;
  for (std::size_t r = 0; r < rows(t); ++r) {
    if (std::isfinite(value(*m.value, r)) && !(square && cell(a, r) == cell(b, r)))
      order.push_back(r);
  }
  const std::size_t kept = std::min(most, order.size());
  const auto larger = [&](std::size_t x, std::size_t y) {
    return value(*m.value, x) > value(*m.value, y) ||
           (value(*m.value, x) == value(*m.value, y) && x < y);
  };
  std::partial_sort(order.begin(), order.begin() + std::ptrdiff_t(kept), order.end(), larger);
  order.resize(kept);
  Table out = t;
  for (Column& c : out.columns) {
    std::visit([&](auto& cells) { cells = picked(cells, order); }, c.cells);
    c.chance = picked(c.chance, order);
    c.chance_spread = picked(c.chance_spread, order);
    c.low = picked(c.low, order);
    c.high = picked(c.high, order);
  }
  return out;
}

std::string values_figure(const Map& m) {
  std::vector<double> v = values_of(m);
  if (v.size() < bins)
    return "";
  const auto [low, high] = std::minmax_element(v.begin(), v.end());
  const double from = *low;
  const double step = (*high - *low) / double(bins);
  if (!(step > 0))
    return "";
  std::vector<std::string> name;
  std::vector<std::int64_t> count(bins, 0);
  for (std::size_t i = 0; i < bins; ++i)
    name.push_back(number(from + step * (double(i) + 0.5), digits(*m.value)));
  for (const double x : v)
    ++count[std::min(bins - 1, std::size_t((x - from) / step))];
  const Table t{"",
                "How many cells have which value",
                "",
                Chart::bars,
                {{heading(*m.value), "", "", name, "", {}}, {"cells", "", "", count, "", {}}},
                "",
                false,
                {}};
  return concat("<figure><figcaption>How many of the ", number(double(v.size()), 0),
                " values are how large</figcaption><div class=slim style=\"max-width:640px\">",
                bar_chart(t, {{&t.columns[1]}}, {640, 170}), "</div></figure>");
}

}  // namespace moe::drawing
