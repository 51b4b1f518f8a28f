#include "analysis/report/cells.h"

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();

std::string grouped(std::string digits) {  // "1234567" -> "1,234,567"
  const std::size_t sign = !digits.empty() && digits[0] == '-';
  for (std::size_t at = digits.size(); at > sign + 3;)
    digits.insert(at -= 3, ",");
  return digits;
}

double one_or_each(const std::vector<double>& v, std::size_t row) {
  if (v.size() == 1)
    return v[0];
  return row < v.size() ? v[row] : none;
}

bool has_interval(const Column& c, std::size_t row) {
  return row < c.low.size() && row < c.high.size() && !std::isnan(c.low[row]) &&
         !std::isnan(c.high[row]);
}

}  // namespace

std::size_t rows(const Column& c) {
  return std::visit([](const auto& v) { return v.size(); }, c.cells);
}

std::size_t rows(const Table& t) {
  std::size_t most = 0;
  for (const Column& c : t.columns)
    most = std::max(most, rows(c));
  return most;
}

bool is_number(const Column& c) {
  return !std::holds_alternative<std::vector<std::string>>(c.cells);
}

double value(const Column& c, std::size_t row) {
  if (row >= rows(c))
    return none;
  if (const auto* i = std::get_if<std::vector<std::int64_t>>(&c.cells))
    return double((*i)[row]);
  if (const auto* d = std::get_if<std::vector<double>>(&c.cells))
    return (*d)[row];
  return none;
}

double chance(const Column& c, std::size_t row) {
  return one_or_each(c.chance, row);
}
double chance_spread(const Column& c, std::size_t row) {
  return one_or_each(c.chance_spread, row);
}

std::string number(double v, int digits, bool ascii) {
  if (std::isnan(v))
    return ascii ? "-" : "–";
  if (std::isinf(v))
    return std::string(v < 0 ? "-" : "") + (ascii ? "inf" : "∞");
  if (v == 0)
    return fmt::format("{:.{}f}", 0.0, digits);
  if (std::abs(v) < 1e-12)
    return v < 0 ? ">-1e-12" : "<1e-12";
  if (std::abs(v) >= 1e15)
    return fmt::format("{:.3g}", v);
  if (std::abs(v) < 0.5 * std::pow(10, -digits))
    return fmt::format("{:.1e}", v);
  if (std::abs(v) >= 1e3 && v == std::floor(v))  // a count among shares
    return grouped(fmt::format("{:.0f}", v));
  std::string text = fmt::format("{:.{}f}", v, digits);
  const auto point = text.find('.');
  if (std::abs(v) < 1e3)
    return text;
  return grouped(text.substr(0, point)) + (point == text.npos ? "" : text.substr(point));
}

std::string cell(const Column& c, std::size_t row, bool ascii) {
  if (row >= rows(c))
    return "";
  if (const auto* s = std::get_if<std::vector<std::string>>(&c.cells))
    return clean((*s)[row]);
  if (const auto* i = std::get_if<std::vector<std::int64_t>>(&c.cells)) {
    const std::string text = concat((*i)[row]);
    return c.metric.empty() ? text : grouped(text);  // a key (id, step, year) stays as it is
  }
  return number(value(c, row), c.digits, ascii);
}

int digits(const Column& c) {
  return std::holds_alternative<std::vector<std::int64_t>>(c.cells) ? 0 : c.digits;
}

std::string chance_cell(const Column& c, std::size_t row, bool ascii) {
  const double v = chance(c, row);
  if (std::isnan(v))
    return "";
  // 1.5 of a count
  const bool fraction = digits(c) == 0 && std::abs(v) < 100 && v != std::floor(v);
  return number(v, fraction ? 1 : digits(c), ascii);
}

std::string interval_cell(const Column& c, std::size_t row, bool ascii) {
  if (!has_interval(c, row))
    return "";
  return "[" + number(c.low[row], digits(c), ascii) + ", " + number(c.high[row], digits(c), ascii) +
         "]";
}

const char* range_word(const Column& c) {
  return c.extremes ? "lowest to highest" : "95 % interval";
}

std::string chance_beside(const Column& c, std::size_t row, bool word, bool ascii) {
  const std::string by = chance_cell(c, row, ascii);
  if (by.empty())
    return "";
  return concat(!inside_chance(c, row) ? "" : ascii ? "~" : "≈ ", word ? "chance " : "", by);
}

bool inside_chance(const Column& c, std::size_t row) {
  const double by = chance(c, row);
  if (has_interval(c, row))
    return c.low[row] <= by && by <= c.high[row];  // NaN: no
  return std::abs(value(c, row) - by) <= 2 * chance_spread(c, row);
}

bool any_inside_chance(const Table& t) {
  return !inside_words(t).empty();
}

std::string inside_words(const Table& t, bool ascii) {
  bool by_interval = false;
  bool by_spread = false;
  for (const Column& c : t.columns) {
    for (std::size_t r = 0; r < (c.chance.empty() ? 0 : rows(c)); ++r) {
      if (inside_chance(c, r))
        (has_interval(c, r) ? by_interval : by_spread) = true;
    }
  }
  if (!by_interval && !by_spread)
    return "";
  return concat(
      ascii ? "~" : "≈ ",
      "chance: ", by_interval ? "the 95 % interval holds the value of random routing" : "",
      by_interval && by_spread ? "; without an interval, " : "",
      by_spread ? "the figure lies within two standard deviations of random routing" : "");
}

std::string short_number(double v) {
  const double size = std::abs(v);
  if (size >= 1e9 || (size > 0 && size < 1e-4))
    return fmt::format("{:.3g}", v);
  if (size >= 1e6)
    return fmt::format("{:g}M", v / 1e6);
  if (size >= 1e4)
    return fmt::format("{:g}k", v / 1e3);
  return fmt::format("{:.6g}", std::round(v * 1e6) / 1e6 + 0.0);
}

std::string heading(const Column& c) {
  return clean(c.unit.empty() || c.unit == c.name ? c.name : c.name + " (" + c.unit + ")");
}

std::size_t keys(const Table& t) {
  std::size_t n = 0;
  while (n < t.columns.size() && t.columns[n].metric.empty())
    ++n;
  // no metric anywhere
  if (n == t.columns.size())
    n = std::min<std::size_t>(n, t.chart == Chart::heatmap ? 2 : 1);
  return std::max<std::size_t>(n, t.columns.empty() ? 0 : 1);
}

std::vector<Panel> panels(const Table& t) {
  std::vector<Panel> out;
  for (std::size_t i = 1; i < t.columns.size(); ++i) {
    const Column& c = t.columns[i];
    if (!is_number(c))
      continue;
    const auto shares = [&](const Panel& p) {
      return p.series[0]->metric == c.metric && p.series[0]->unit == c.unit;
    };
    const auto found = std::find_if(out.begin(), out.end(), shares);
    if (found == out.end())
      out.push_back({{&c}});
    else
      found->series.push_back(&c);
  }
  return out;
}

Axis axis(double low, double high, int about) {
  // what rounding leaves between equal numbers is no range
  const double size = std::max(std::abs(low), std::abs(high));
  if (!(high - low > 1e-9 * size))
    high = low + (low == 0 ? 1 : std::abs(low));
  const double raw = (high - low) / about;
  const double scale = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * scale;
  for (const double s : {5.0, 2.0, 1.0}) {
    if (s * scale >= raw * 0.999)
      step = s * scale;
  }
  // in whole steps, so that the tick at zero is zero
  const double first = std::floor(low / step + 1e-9);
  const double last = std::ceil(high / step - 1e-9);
  Axis out{first * step, last * step, {}};
  for (int i = 0; i <= int(last - first); ++i)
    out.ticks.push_back((first + i) * step);
  return out;
}

namespace {

// Whether no value differs from 0 and nothing beside them does by as much as can be read: they have
// no scale of their own, and that of a chance of 1e-17 says nothing.
bool reads_as_zero(const Panel& p, double low, double high) {
  double least = 1;
  for (const Column* c : p.series) {
    least = std::min(least, std::pow(10, -digits(*c)));
    for (std::size_t r = 0; r < rows(*c); ++r) {
      if (std::abs(value(*c, r)) >= 1e-12)
        return false;
    }
  }
  return -least < low && high < least;
}

}  // namespace

Axis axis_of(const Panel& p, bool from_zero) {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  const auto see = [&](double v) {
    if (std::isfinite(v)) {
      low = std::min(low, v);
      high = std::max(high, v);
    }
  };
  for (const Column* c : p.series) {
    for (std::size_t r = 0; r < rows(*c); ++r) {
      see(value(*c, r));
      see(chance(*c, r));
      if (r < c->low.size() && r < c->high.size()) {
        see(c->low[r]);
        see(c->high[r]);
      }
    }
  }
  if (low > high || reads_as_zero(p, low, high)) {
    low = 0;
    high = 1;
  }
  if (from_zero || (low >= 0 && low < 0.6 * high)) {
    low = std::min(low, 0.0);
    high = std::max(high, 0.0);
  }
  const bool whole = std::all_of(p.series.begin(), p.series.end(),
                                 [](const Column* c) { return digits(*c) == 0; });
  return axis(low, high, whole ? std::clamp(int(high - low), 1, 4) : 4);
}

std::vector<Section> sections(const Report& report) {
  const auto headline = [](std::string name) {
    name = clean(name.empty() ? "tables" : name);
    if (name[0] >= 'a' && name[0] <= 'z')
      name[0] = char(name[0] - 'a' + 'A');
    return name;
  };
  std::vector<Section> out;
  const bool named =
      std::ranges::any_of(report.tables, [](const Table& t) { return !t.section.empty(); });
  for (const Table& t : report.tables) {
    const std::string name = named ? headline(t.section) : "";
    const auto found =
        std::find_if(out.begin(), out.end(), [&](const Section& s) { return s.name == name; });
    if (found == out.end())
      out.push_back({name, {&t}});
    else
      found->tables.push_back(&t);
  }
  return out;
}

bool short_fact(std::string_view text) {
  constexpr int head_columns = 34;
  return columns(text) <= head_columns;
}

bool draws(const Table& t) {
  if (t.chart == Chart::none || rows(t) == 0)
    return false;
  if (t.chart == Chart::heatmap)
    return map_of(t).value != nullptr;
  if (t.chart == Chart::flow)
    return t.columns.size() >= 5 && is_number(t.columns[3]) && is_number(t.columns[4]);
  return rows(t) > 1 && !panels(t).empty();
}

}  // namespace moe::drawing
