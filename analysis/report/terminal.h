// The terminal's side of a report: what fits a width, and charts made of characters. Every function
// returns lines that are no wider than the width it is given.
#pragma once
#include <string>
#include <vector>

#include "analysis/report/cells.h"
#include "analysis/report/render.h"

namespace moe::drawing {

struct Terminal {
  int width = 80;
  bool colour = false, ascii = false;
  std::size_t rows = 12;  // of a table marked detail

  std::string bold(const std::string& s) const {
    return paint("1", s);
  }
  std::string dim(const std::string& s) const {
    return paint("2", s);
  }
  std::string paint(const char* code, const std::string& s) const;
  // green, grey, yellow, red in that colour
  std::string lamp(const std::string& word) const;
  std::string rule(int n) const;  // "────"
};

using Lines = std::vector<std::string>;
Lines table_lines(const Terminal&, const Table&, std::size_t count);  // the first `count` rows
// one block of bars a panel with one series, else shades
Lines bar_lines(const Terminal&, const Table&, std::size_t count);
Lines spark_lines(const Terminal&, const Table&);  // a line of ▁▂▃ a series
Lines map_lines(const Terminal&, const Map&);
// the text, coloured by the middle layer; nothing without colour
Lines sample_lines(const Terminal&, const Report&);

}  // namespace moe::drawing
