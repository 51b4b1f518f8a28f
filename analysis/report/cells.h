// What the renderers share: how a number is written, which columns share an axis, how three columns
// become a map. Drawing decides nothing that is not here, so text and html show the same figures.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "analysis/table.h"

namespace moe::drawing {

std::size_t rows(const Column&);
std::size_t rows(const Table&);  // of the longest column
bool is_number(const Column&);
double value(const Column&, std::size_t row);  // NaN: text, or no value
// NaN: not known. One chance value stands for all rows
double chance(const Column&, std::size_t row);
double chance_spread(const Column&, std::size_t row);  // as chance

// "0.410", "1,234,567" (counts), "∞" or "inf", "–" or "-" for NaN. A number that is not zero never
// reads 0.000: it is "2.0e-05", and below 1e-12 "<1e-12".
std::string number(double v, int digits, bool ascii = false);
// "" beyond the end; clean text
std::string cell(const Column&, std::size_t row, bool ascii = false);
std::string chance_cell(const Column&, std::size_t row, bool ascii = false);  // "" where not known
// "≈ chance 0.02"; without the word "≈ 0.02"
std::string chance_beside(const Column&, std::size_t row, bool word, bool ascii = false);
// "[0.12, 0.15]"; "" where there is none
std::string interval_cell(const Column&, std::size_t row, bool ascii = false);
// What low and high of a column are: "95 % interval", or "lowest to highest".
const char* range_word(const Column&);

// Random routing would do as well: the 95 % interval holds the chance value; where there is no
// interval, the figure lies within two standard deviations of it; where neither is known, nothing
// is said. Every renderer marks what this marks.
bool inside_chance(const Column&, std::size_t row);
bool any_inside_chance(const Table&);
// what the mark says, for a legend; "" where nothing is marked
std::string inside_words(const Table&, bool ascii = false);
// for axes: "0.05", "12k", "3M"
std::string short_number(double v);
// after the point: none for whole numbers
int digits(const Column&);
std::string heading(const Column&);  // "MI (bits)"
// leading columns without a metric: what a row is about. At least 1 where there are columns
std::size_t keys(const Table&);

// bars, lines: numeric columns with the same metric (or, without one, the same unit) share an axis.
struct Panel {
  std::vector<const Column*> series;
};
std::vector<Panel> panels(const Table&);

// heatmap: the key columns are (row, col) or (facet, row, col); the first numeric column behind
// them is drawn.
struct Grid {
  std::string facet;
  std::vector<std::string> row, col;
  std::vector<double> value, chance;  // (row, col), NaN = no value
  std::vector<bool> inside;           // (row, col): inside chance; empty where cells are pooled
  int pooled = 1;                     // each cell is the largest of pooled x pooled
  double at(std::size_t r, std::size_t c) const {
    return value[r * col.size() + c];
  }
};
struct Map {
  const Column* value = nullptr;  // null: cannot be drawn
  std::string facet, row, col;    // headings of the axes; facet "" = there is one grid
  std::vector<Grid> grids;
  double low = 0, high = 1;  // what the colours span
  bool diverging = false;    // the colours part in the middle: at zero, or at `chance`
  bool by_ratio = false;     // around chance: a value lies from it as far as its ratio's logarithm
  double chance = 0;         // NaN when not known or not the same everywhere
  std::size_t cells() const;
  std::string inside_words() const;  // "12 of 64 cells are inside chance"; "" where none is
};
Map map_of(const Table&);
Map map_of(const Table&, const Panel&);  // of bars or lines: a row a series, column 0 across
// neighbours put together, the largest is kept
Grid pooled(const Grid&, std::size_t most_rows, std::size_t most_cols);
// 0..1 on the colour scale, clamped; v not NaN
double position(const Map&, double v);
double value_at(const Map&, double position);  // the other way

struct Axis {
  double low = 0, high = 1;
  std::vector<double> ticks;
};
Axis axis(double low, double high, int about);  // ends on round numbers
Axis axis_of(const Panel&, bool from_zero);     // finite values, chances and intervals

struct Section {
  std::string name;  // "balance" stands as "Balance"
  std::vector<const Table*> tables;
};
std::vector<Section> sections(const Report&);  // in order of first appearance
bool short_fact(std::string_view text);        // stands in the head; longer ones at the end
// the chart that it asks for can be drawn from what it holds
bool draws(const Table&);

}  // namespace moe::drawing
