// Long form to map: (row, col, value) or (facet, row, col, value) columns become grids, and a span
// for their colours.
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "analysis/report/cells.h"
#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();

// Each row's index among the distinct values of a key column, and the labels: numbers in order,
// names as they come.
struct Labels {
  std::vector<std::size_t> index;
  std::vector<std::string> label;
};
Labels labels(const Column& c) {
  Labels out;
  std::map<std::string, std::size_t> known;
  std::vector<std::size_t> first;  // row that showed the label first
  for (std::size_t r = 0; r < rows(c); ++r) {
    const auto [at, is_new] = known.try_emplace(cell(c, r), out.label.size());
    if (is_new) {
      out.label.push_back(at->first);
      first.push_back(r);
    }
    out.index.push_back(at->second);
  }
  if (!is_number(c))
    return out;
  std::vector<std::size_t> order(first.size());
  std::vector<std::size_t> rank(first.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return value(c, first[a]) < value(c, first[b]);
  });
  Labels sorted;
  for (std::size_t i = 0; i < order.size(); ++i) {
    rank[order[i]] = i;
    sorted.label.push_back(out.label[order[i]]);
  }
  for (const std::size_t i : out.index)
    sorted.index.push_back(rank[i]);
  return sorted;
}

void fill(Map& m, const Column* facet_key, const Column& row_key, const Column& col_key) {
  const Labels facet = facet_key ? labels(*facet_key) : Labels{{}, {""}};
  const Labels row = labels(row_key);
  const Labels col = labels(col_key);
  const std::size_t area = row.label.size() * col.label.size();
  for (const std::string& name : facet.label) {
    m.grids.push_back({name, row.label, col.label, std::vector<double>(area, none),
                       std::vector<double>(area, none), std::vector<bool>(area)});
  }
  const std::size_t n = std::min({rows(*m.value), row.index.size(), col.index.size()});
  for (std::size_t r = 0; r < n; ++r) {
    Grid& g = m.grids[r < facet.index.size() ? facet.index[r] : 0];
    const std::size_t at = row.index[r] * col.label.size() + col.index[r];
    g.value[at] = value(*m.value, r);
    g.chance[at] = chance(*m.value, r);
    g.inside[at] = inside_chance(*m.value, r);
  }
}

// Half to twice the chance value at least, an eighth to eight times at most.
constexpr double least_octaves = 1;
constexpr double most_octaves = 3;

// Where the column asks for it and chance is one number above 0: colours by the ratio to it.
void span_by_ratio(Map& m) {
  double octaves = least_octaves;
  for (const Grid& g : m.grids) {
    for (const double v : g.value) {
      if (v < 0)
        return;
      if (v > 0 && std::isfinite(v))
        octaves = std::max(octaves, std::abs(std::log2(v / m.chance)));
    }
  }
  octaves = std::min(octaves, most_octaves);
  m.by_ratio = true;
  m.diverging = true;
  m.low = m.chance / std::exp2(octaves);
  m.high = m.chance * std::exp2(octaves);
}

void span(Map& m) {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  std::set<double> chances;
  for (const Grid& g : m.grids) {
    const bool square = g.row == g.col;  // a thing against itself says nothing about the rest
    for (std::size_t i = 0; i < g.value.size(); ++i) {
      if (!std::isnan(g.chance[i]) && chances.size() < 2)
        chances.insert(g.chance[i]);
      if (!std::isfinite(g.value[i]) || (square && i / g.col.size() == i % g.col.size()))
        continue;
      low = std::min(low, g.value[i]);
      high = std::max(high, g.value[i]);
    }
  }
  m.chance = chances.size() == 1 ? *chances.begin() : none;
  if (low > high) {
    low = 0;
    high = 1;
  }
  m.diverging = low < 0 && high > 0;
  if (m.diverging) {
    high = std::max(high, -low);
    low = -high;
  } else if (low >= 0) {
    low = 0;
  } else {
    high = 0;
  }
  if (std::isfinite(m.chance)) {
    low = std::min(low, m.chance);
    high = std::max(high, m.chance);
  }
  // what reads as more than 0: no scale from 0 to 4e-88
  const double least = std::pow(10, -digits(*m.value));
  if (high - low < least)
    low < 0 ? low = high - least : high = low + least;
  m.low = low;
  m.high = high;
  if (m.value->around_chance && m.chance > 0)
    span_by_ratio(m);
}

}  // namespace

std::size_t Map::cells() const {
  return grids.empty() ? 0 : grids.size() * grids[0].value.size();
}

std::string Map::inside_words() const {
  std::ptrdiff_t inside = 0;
  std::ptrdiff_t known = 0;
  for (const Grid& g : grids) {
    inside += std::ranges::count(g.inside, true);
    known += std::ranges::count_if(g.value, [](double v) { return !std::isnan(v); });
  }
  return inside == 0 ? ""
                     : concat(inside, " of ", known, known == 1 ? " value is" : " values are",
                              " inside chance");
}

Map map_of(const Table& t) {
  Map m;
  const std::size_t k = keys(t);
  if (t.chart != Chart::heatmap || t.columns.size() < 3 || rows(t) == 0)
    return m;
  const std::size_t first = k >= 3 && t.columns.size() > 3 ? 1 : 0;
  for (std::size_t i = first + 2; i < t.columns.size() && !m.value; ++i) {
    if (is_number(t.columns[i]))
      m.value = &t.columns[i];
  }
  if (!m.value)
    return m;
  if (first)
    m.facet = heading(t.columns[0]);
  m.row = heading(t.columns[first]);
  m.col = heading(t.columns[first + 1]);
  fill(m, first ? &t.columns[0] : nullptr, t.columns[first], t.columns[first + 1]);
  span(m);
  return m;
}

Map map_of(const Table& t, const Panel& p) {
  Map m;
  m.value = p.series[0];
  m.col = heading(t.columns[0]);
  Grid g;
  const std::size_t n = rows(t);
  for (std::size_t r = 0; r < n; ++r)
    g.col.push_back(cell(t.columns[0], r));
  for (const Column* c : p.series) {
    g.row.push_back(clean(c->name));
    for (std::size_t r = 0; r < n; ++r) {
      g.value.push_back(value(*c, r));
      g.chance.push_back(chance(*c, r));
      g.inside.push_back(inside_chance(*c, r));
    }
  }
  m.grids.push_back(std::move(g));
  span(m);
  return m;
}

Grid pooled(const Grid& g, std::size_t most_rows, std::size_t most_cols) {
  const std::size_t down = (g.row.size() + most_rows - 1) / std::max<std::size_t>(1, most_rows);
  const std::size_t across = (g.col.size() + most_cols - 1) / std::max<std::size_t>(1, most_cols);
  const std::size_t n = std::max(down, across);
  if (n <= 1)
    return g;
  Grid out{g.facet, {}, {}, {}, {}, {}, int(n)};
  for (std::size_t r = 0; r < g.row.size(); r += n)
    out.row.push_back(g.row[r]);
  for (std::size_t c = 0; c < g.col.size(); c += n)
    out.col.push_back(g.col[c]);
  out.value.assign(out.row.size() * out.col.size(), none);
  out.chance = out.value;
  for (std::size_t r = 0; r < g.row.size(); ++r) {
    for (std::size_t c = 0; c < g.col.size(); ++c) {
      double& cell = out.value[r / n * out.col.size() + c / n];
      if (!(cell >= g.at(r, c)) && !std::isnan(g.at(r, c)))
        cell = g.at(r, c);
    }
  }
  return out;
}

double position(const Map& m, double v) {
  if (m.by_ratio) {
    const double octaves = std::log2(m.high / m.chance);
    return v > 0 ? std::clamp(0.5 + std::log2(v / m.chance) / (2 * octaves), 0.0, 1.0) : 0;
  }
  return std::clamp((v - m.low) / (m.high - m.low), 0.0, 1.0);
}

double value_at(const Map& m, double at) {
  return m.by_ratio ? m.low * std::pow(m.high / m.low, at) : m.low + at * (m.high - m.low);
}

}  // namespace moe::drawing
