// What every analysis returns and every renderer draws: columns that say what they mean. No metric
// formats text; no renderer knows a metric.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace moe {

using Cells =
    std::variant<std::vector<std::int64_t>, std::vector<double>, std::vector<std::string>>;

// What a light needs beside a figure: how bad random routing on so many tokens makes it, row by
// row.
struct Evidence {
  // the worst that random routing reaches in more than one of a hundred traces
  std::vector<double> reach;
  std::vector<double> tokens;  // that the figure was measured on, or `unit`
  // tokens from which on random routing rarely reaches the first threshold; NaN: there are enough,
  // infinite: no number of tokens is
  std::vector<double> needed;
  std::string per;  // " a step", where tokens are those of a step
  // "assignments" where only those are known: of an engine that only counts, and not its top-k
  std::string unit = "tokens";
};

struct Column {
  // "max/mean", "x", "load of the busiest expert over the mean load"
  std::string name, unit, meaning;
  Cells cells;  // doubles: NaN = no value, +inf is printed as such
  // definition id of docs/metrics.md ("load_cv"); empty = a key or label
  std::string metric;
  std::vector<double> chance;  // the value under random routing, row by row; empty = not known
  int digits = 3;              // after the point, for doubles
  // 95 % interval, row by row, NaN where there is none; empty = not known
  std::vector<double> low = {}, high = {};
  // cells are the words green, grey, yellow, red, and are drawn in that colour too
  bool light = false;
  // standard deviation of the figure under random routing, as `chance`; empty = not known
  std::vector<double> chance_spread = {};
  // of a figure that has a light
  Evidence evidence = {};
  // a map of it is coloured by the ratio to the chance value, which lies in the middle
  bool around_chance = false;
  // low and high are the lowest and the highest of some runs, and no interval
  bool extremes = false;
};

enum class Chart { none, bars, lines, heatmap, flow };

// bars/lines: column 0 is the x axis, every numeric column a series. heatmap: columns are (row,
// col, value). flow: (step, from, to, share of all, x of what independent steps give), steps in
// their order, both ends of a step named alike.
struct Table {
  // reading: one or two sentences on how to read it, and what chance would give
  std::string id, title, reading;
  Chart chart = Chart::none;
  std::vector<Column> columns;
  // heading it stands under: "balance", "specialisation", "paths", "redundancy", ...
  std::string section;
  // long data: drawn or cut in text and html, whole in csv and json
  bool detail = false;
  std::vector<std::string> warnings;
};

// Tokens of a sample that lie in a grid, row by row: patches of a picture, stretches of a sound.
struct SamplePicture {
  std::size_t first = 0;  // token
  int rows = 0, columns = 0;
  std::string modality;

  std::size_t end() const {
    return first + std::size_t(rows) * std::size_t(columns);
  }
};

// A sample of the text, every token with the expert chosen first in each layer (Mixtral's figure).
struct TokenSample {
  std::string domain;
  std::vector<std::string> piece;            // (T) raw bytes of each token
  std::vector<std::vector<int>> expert;      // (L)(T) first choice; -1 = none
  std::vector<SamplePicture> pictures = {};  // in their order; each is whole
};

// A cell that a finding speaks of.
struct Quote {
  enum class Use {
    value,   // it stands in the sentence
    chance,  // its chance value does
    basis    // a number of the sentence was computed from it, or from `rows` rows from it on
  };
  std::string table, column;
  std::string metric;  // of the column, which may share its name with others of the table
  std::size_t row = 0;
  std::size_t rows = 1;
  Use use = Use::value;
};

// What a finding says to somebody who reads only a few, in rising order of what to read first.
enum class Priority {
  overview,  // what the lights say already
  chance,    // no more than random routing shows
  green,     // a figure with a light, which is green
  too_few,   // too few tokens to say
  told,      // stands out from random routing, neither good nor bad
  yellow,
  red
};

// A sentence on what stands out, and where its numbers stand (analysis/metric/finding.h).
struct Finding {
  std::string text;
  std::vector<Quote> cells;
  Priority priority = Priority::told;
};

// A figure that has a light: the layer that decides it, and all layers beside.
struct Tile {
  std::string name, light;  // "load CV", "red"
  std::string metric;       // definition id
  std::string table;        // where it stands layer by layer
  std::int64_t layer = 0;   // the worst
  // of the worst layer: one row, with its chance value and interval
  Column worst;
  std::vector<double> by_layer;  // (L), NaN = no value
  std::vector<double> chance;    // (L); empty = not known
  bool low_is_bad = false;
  std::string turns;  // where the light turns yellow and red: "from 0.25, 0.75"; empty = not known
};

struct Report {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts;  // command, version, seed, file...
  // the story in sentences: what stands out, with numbers
  std::vector<Finding> findings;
  std::vector<std::string> warnings;
  std::vector<Table> tables;
  // absolute numbers, for the sample's selector
  std::vector<int> layers;
  std::vector<TokenSample> samples;
  // what was reported on, in one line: "runs/a, 16,384 tokens, 4 MoE layers x 8 experts, k=2"
  std::string subject;
  std::vector<Tile> tiles;
};

}  // namespace moe
