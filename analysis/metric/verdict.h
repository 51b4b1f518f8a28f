// Whether a figure shows something, beyond what random routing on so many tokens shows as well: the
// one rule behind the traffic lights and the findings in words.
#pragma once
#include <optional>

#include "analysis/metric/reach.h"
#include "analysis/metric/thresholds.h"
#include "analysis/table.h"

namespace moe {

// Grey: nothing can be said. In rising order of what a reader has to look at.
enum class Light { green, grey, yellow, red };
constexpr const char* light_words[] = {"green", "grey", "yellow", "red"};

// A light is given where random routing would rarely reach its yellow; where it would, only to what
// lies beyond its reach by as much as the threshold again. Otherwise grey. Green also where random
// routing gives half as much or more. The cell has a value.
Light light_of(const Threshold&, const Column&, std::size_t row);

// The row that counts most: the highest light, then the worst value. Nothing where none has a
// value.
struct JudgedLight {
  Light light = Light::grey;
  std::size_t row = 0;
  double tokens = 0;            // that it was measured on
  double needed = 0;            // of a grey one: tokens for a light; infinite: no number is enough
  std::string unit = "tokens";  // that both count, or "assignments"
};
std::optional<JudgedLight> verdict(const Threshold&, const Column&);

// Collects the evidence of a column, a layer a row.
class Judge {
 public:
  Judge(Threshold t, chance::Reach reach) : threshold_(std::move(t)), reach_(std::move(reach)) {}
  void add(const chance::Size&);
  // Where the tokens are not known, of so many assignments: as if every token had made one choice,
  // for no choices of random routing fall less evenly.
  void add_assignments(double experts, double assignments, double layers);
  Evidence take() {
    return std::move(rows_);
  }

 private:
  Threshold threshold_;
  chance::Reach reach_;
  chance::Size last_;  // layers are often of one shape
  Evidence rows_;
};

// What a figure says about random routing: more than it, no more than it, or nothing at all,
// because a difference that matters could hide in the noise of so few tokens.
enum class Shown { more, no_more, too_few };
struct Standing {
  Shown shown = Shown::too_few;
  double needed = 0;  // tokens, where they are too few
};
constexpr double worth_telling = 0.05;  // of the most that a figure can be
struct Noise {
  double tokens = 0;             // that the figure was measured on
  double figures = 1;            // among which the largest was looked for
  double worth = worth_telling;  // the smallest excess that a reader would care about
  double falls = 0.5;  // the spread goes with tokens^-falls: 1/2 of shares, 1 of information
};
// Above chance only.
Standing standing(double value, const chance::Value& by_chance, const Noise&);

// "12 tokens are too few to judge WHAT: needs about 190." Infinite or unknown: without a number.
Finding too_few(double tokens, const std::string& what, double needed, const std::string& per = "",
                const std::string& unit = "tokens");

}  // namespace moe
