#include "analysis/metric/finding.h"

#include <algorithm>

#include "analysis/metric/layout.h"
#include "lib/core/error.h"

namespace moe {
namespace {

std::size_t height(const Column& c) {
  return std::visit([](const auto& cells) { return cells.size(); }, c.cells);
}

Error not_there(const Table& t, std::string_view what) {
  return Error(Exit::bug, concat("a finding quotes ", what, ", which table '", t.id, "' lacks"));
}

template <class T>
std::span<const T> cells_of(const Table& t, const Column& c) {
  const auto* cells = std::get_if<std::vector<T>>(&c.cells);
  if (!cells)
    throw not_there(t, concat("'", c.name, "' as cells of another kind"));
  return *cells;
}

double number_of(const Column& c, std::size_t row) {
  if (const auto* counts = std::get_if<std::vector<std::int64_t>>(&c.cells))
    return double((*counts)[row]);
  const auto* numbers = std::get_if<std::vector<double>>(&c.cells);
  return numbers ? (*numbers)[row] : no_value;
}

std::string text_of(const Column& c, std::size_t row) {
  return std::visit([row](const auto& cells) { return concat(cells[row]); }, c.cells);
}

Quote quote(const Table& t, const Column& c, std::size_t row, Quote::Use use) {
  return {.table = t.id, .column = c.name, .metric = c.metric, .row = row, .use = use};
}

}  // namespace

Finding QuotedCell::figure(int digits) const {
  return {moe::figure(number_, digits), {at_}};
}
Finding QuotedCell::percent() const {
  return {moe::percent(number_), {at_}};
}
Quote QuotedCell::basis() const {
  Quote out = at_;
  out.use = Quote::Use::basis;
  return out;
}

QuotedTable::QuotedTable(const Report& r, std::string_view id) {
  const auto found = std::ranges::find(r.tables, id, &Table::id);
  if (found == r.tables.end())
    throw Error(Exit::bug, concat("a finding quotes table '", id, "', which is not in the report"));
  table_ = &*found;
}

const Column& QuotedTable::column(std::string_view name, std::string_view metric) const {
  for (const Column& c : table_->columns) {
    if (c.name == name && (metric.empty() || c.metric == metric))
      return c;
  }
  throw not_there(*table_, concat("column '", name, "'"));
}

QuotedCell QuotedTable::cell(const Column& c, std::size_t row) const {
  if (row >= height(c))
    throw not_there(*table_, concat("row ", row, " of '", c.name, "'"));
  return {quote(*table_, c, row, Quote::Use::value), number_of(c, row), text_of(c, row)};
}

QuotedCell QuotedTable::chance(std::string_view name, std::size_t row) const {
  const Column& c = column(name);
  if (row >= c.chance.size())
    throw not_there(*table_, concat("the chance value of '", name, "' in row ", row));
  const double by_chance = c.chance[row];
  return {quote(*table_, c, row, Quote::Use::chance), by_chance, concat(by_chance)};
}

Quote QuotedTable::basis(const Column& c, std::size_t first, std::size_t count) const {
  if (count == 0 || first >= height(c) || count > height(c) - first)
    throw not_there(*table_, concat(count, " rows of '", c.name, "' from row ", first, " on"));
  Quote out = quote(*table_, c, first, Quote::Use::basis);
  out.rows = count;
  return out;
}

std::size_t QuotedTable::rows() const {
  return table_->columns.empty() ? 0 : height(table_->columns[0]);
}
std::span<const double> QuotedTable::numbers(std::string_view name) const {
  return cells_of<double>(*table_, column(name));
}
std::span<const double> QuotedTable::chances(std::string_view name) const {
  return column(name).chance;
}
std::span<const std::int64_t> QuotedTable::counts(std::string_view name) const {
  return cells_of<std::int64_t>(*table_, column(name));
}
std::span<const std::string> QuotedTable::words(std::string_view name) const {
  return cells_of<std::string>(*table_, column(name));
}

Finding derived(std::string text, std::vector<Quote> from) {
  return {std::move(text), std::move(from)};
}

std::size_t largest(std::span<const double> numbers) {
  return std::size_t(std::ranges::max_element(numbers) - numbers.begin());
}

void detail::add(Finding& to, const Finding& piece) {
  to.text += piece.text;
  if (piece.priority != Priority::told)
    to.priority = piece.priority;
  to.cells.insert(to.cells.end(), piece.cells.begin(), piece.cells.end());
}

}  // namespace moe
