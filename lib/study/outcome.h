// What a study found: the measures of every arm and seed, estimates with intervals, and what they
// say about each claim.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "analysis/statistics/paired.h"
#include "lib/study/study.h"

namespace moe {

// A measure of all arms.
struct Measured {
  std::string name, title, unit;
  bool is_time = false;  // repetitions are rounds of timing, not seeds
  std::vector<std::uint64_t> repetitions;
  std::vector<std::vector<double>> values;  // (arms)(repetitions); NaN = none
};

// An arm beside the baseline, in one measure.
struct ArmComparison {
  std::string arm;
  statistics::Estimate value;  // of the arm
  // value less that of the baseline, pair by pair; of times the ratio to it. Its p is Holm's over
  // the arms of the measure. n = 0 for the baseline itself.
  statistics::Estimate difference;
  bool stands_out = false;  // p is below 0.05
};

enum class Answer { holds, fails, open };
struct ClaimVerdict {
  Claim claim;
  Answer answer = Answer::open;
  statistics::Estimate estimate;  // of what is compared with the bound, at `level`
  double bound = 0;
  double level = 0.95;  // of the interval that decides, Holm's over the claims
  int needed = 0;       // repetitions that would decide it; 0 = more than 1000, or not known
  bool is_time = false;
  std::string sentence;  // the answer in words, with its numbers
};

struct FailedUnit {
  std::string name, why;
};

struct Outcome {
  std::vector<Measured> measures;                       // in the order of the study
  std::vector<std::vector<ArmComparison>> comparisons;  // (measures)(arms)
  std::vector<ClaimVerdict> verdicts;                   // in the order of the claims
  std::vector<FailedUnit> failed;
  int units = 0, done = 0;
  std::vector<std::string> warnings;  // of few seeds, of a busy machine
};

// Of what lies in the folder of the study so far.
Outcome outcome_of(const Study&, const std::filesystem::path& folder);
// The same of values that are there already, for tests and for whoever brings values of their own.
Outcome judged(const Study&, std::vector<Measured>);

const char* word_of(Answer);  // "holds", "does not hold", "not decided at this size"

}  // namespace moe
