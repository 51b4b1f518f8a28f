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
// a step a value between `low` and `high`; a blank where there is none
std::string sparkline(const Terminal&, const std::vector<double>& values, double low, double high);
Lines map_lines(const Terminal&, const Map&);
// The text, coloured by the middle layer, with what the colours mean and what was left out; nothing
// without colour.
Lines sample_lines(const Terminal&, const Report&);

// Lines of a report on their way out.
class TextPage {
 public:
  explicit TextPage(const Terminal& t) : t_(t) {}

  void line(const std::string& s = "") {
    lines_.push_back(s);
  }
  void lines(const Lines& all) {
    lines_.insert(lines_.end(), all.begin(), all.end());
  }
  // `text` wrapped, its first line behind `mark`, the rest indented as far.
  void paragraph(std::string_view mark, std::string_view text, bool dim = false);
  void title(std::string_view text, bool ruled);
  void warnings(const std::vector<std::string>& all) {
    for (const std::string& w : all)
      paragraph("! ", w);
  }
  std::size_t size() const {
    return lines_.size();
  }
  std::string text() const;

 private:
  const Terminal& t_;
  Lines lines_;
};

}  // namespace moe::drawing
