// Findings, put together from cells of the tables that already stand in the report, so that a
// sentence cannot speak of another number than its table:
//
//   const QuotedTable t(report, "repeats");
//   const std::size_t best = largest(t.numbers("same first choice"));
//   tell(report, "Neighbours keep their expert in ", t.cell("same first choice", best).percent(),
//        " of cases in layer ", t.cell("layer", best), ".");
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/table.h"
#include "lib/core/text.h"

namespace moe {

// One cell, or its chance value, with the place that it was read from.
class QuotedCell {
 public:
  QuotedCell(Quote at, double number, std::string text)
      : at_(std::move(at)), number_(number), text_(std::move(text)) {}

  double number() const {  // NaN: a word, or no value
    return number_;
  }
  // The ways to write it; counts and labels as they stand.
  Finding written() const {
    return {text_, {at_}};
  }
  Finding figure(int digits = 2) const;
  Finding percent() const;
  Quote basis() const;  // where a number is computed from it

 private:
  Quote at_;
  double number_;
  std::string text_;
};

// A table to quote from; good until the report gets another table. What is not there is
// Error(bug): the metric that asks has not put it into the table.
class QuotedTable {
 public:
  QuotedTable(const Report&, std::string_view id);

  // The first of that name, or the one of that definition where several share it.
  const Column& column(std::string_view name, std::string_view metric = "") const;
  QuotedCell cell(const Column&, std::size_t row) const;
  QuotedCell cell(std::string_view column, std::size_t row) const {
    return cell(this->column(column), row);
  }
  QuotedCell chance(std::string_view column, std::size_t row) const;
  // `count` rows from `first` on, from which a number is computed; at least one
  Quote basis(const Column&, std::size_t first, std::size_t count) const;
  Quote basis(std::string_view column) const {  // all rows
    return basis(this->column(column), 0, rows());
  }

  const Table& table() const {
    return *table_;
  }
  std::size_t rows() const;  // of the first column
  std::span<const double> numbers(std::string_view column) const;
  std::span<const double> chances(std::string_view column) const;
  std::span<const std::int64_t> counts(std::string_view column) const;
  std::span<const std::string> words(std::string_view column) const;

 private:
  const Table* table_;
};

// Text that was computed from cells which need not stand in the sentence themselves.
Finding derived(std::string text, std::vector<Quote> from);

// The first of the largest numbers; those that are none do not count, unless the first is none.
std::size_t largest(std::span<const double>);

namespace detail {
// The priority of a piece is that of the whole, unless it is the usual one.
void add(Finding& to, const Finding& piece);
inline void add(Finding& to, Priority priority) {
  to.priority = priority;
}
inline void add(Finding& to, const QuotedCell& piece) {
  add(to, piece.written());
}
template <class T>
void add(Finding& to, const T& piece) {  // text, and numbers that stand in no table
  to.text += concat(piece);
}
}  // namespace detail

template <class... Piece>
void extend(Finding& to, const Piece&... pieces) {
  (detail::add(to, pieces), ...);
}
template <class... Piece>
Finding told(const Piece&... pieces) {
  Finding out;
  extend(out, pieces...);
  return out;
}
template <class... Piece>
void tell(Report& r, const Piece&... pieces) {
  r.findings.push_back(told(pieces...));
}

}  // namespace moe
