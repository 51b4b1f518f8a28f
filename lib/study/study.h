// A study: a question, the command lines that answer it, and what would count as an answer. Read
// from TOML with a declared schema (docs/study.md): what nobody asked for is refused with its line.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe {

// Values for the {names} in command lines, in the order they were declared.
class Variables {
 public:
  const std::string* find(std::string_view name) const;
  void set(const std::string& name, const std::string& value);
  const std::vector<std::pair<std::string, std::string>>& all() const {
    return values_;
  }

 private:
  std::vector<std::pair<std::string, std::string>> values_;
};

struct Arm {
  std::string name;
  std::string options;                // stands where command lines say {options}
  Variables set;                      // over those of the study
  std::vector<std::string> commands;  // of the arm alone; empty = those of [base]
};

// One number of an arm and a seed (lib/study/measure.h).
struct MeasureSpec {
  std::string name;   // as claims and tables call it
  std::string spec;   // "loss:domain=code", "load_cv:layers=most"
  std::string title;  // for people; empty = the measure's own
};

struct Claim {
  std::string says;    // as people say it
  std::string holds;   // lib/study/claim.h: "loss[softmax] - loss[sigmoid] > 0"
  double matters = 0;  // the smallest difference from the bound that is worth knowing
};

// Of measures of time: every arm in turn, round by round, on an otherwise idle machine.
struct TimingRounds {
  int rounds = 0;  // 0 = times are not measured
  int steps = 12;  // of each training command in a round
};

struct Study {
  std::string name;        // of the file, without its ending
  std::string about;       // one line
  std::string question;    // a sentence with a question mark
  std::string toy;         // what models of this size can and cannot show
  std::string literature;  // what was found at scale, with its source
  std::string waits_for;   // what this version of the program lacks for it; empty = nothing
  std::vector<std::uint64_t> seeds;
  std::string baseline;  // the arm that others are compared with
  std::string picture;   // the measure that is drawn first; empty = the first
  Variables set;
  std::vector<std::string> shared;  // command lines of one seed before those of all its arms
  std::vector<std::string> commands;
  std::vector<Arm> arms;
  std::vector<MeasureSpec> measures;
  std::vector<Claim> claims;
  TimingRounds timing;

  const Arm& arm(std::string_view name) const;  // throws Error(usage) where there is none
};

// What the command line says on top of the file.
struct StudyChanges {
  bool quick = false;                                    // the values of [quick]
  std::vector<std::pair<std::string, std::string>> set;  // variables
  int seeds = 0;                                         // 1..seeds; 0 = those of the file
};

// Throws Error(input) naming file, line and key for what is no study, and Error(usage) for a change
// that the study has no place for.
Study parse_study(std::string_view text, const std::string& name, const StudyChanges&);

// A study of one command line and its variants: each of `factors` is "option=a|b|c", a grid
// together; option without dashes. `command`: "train --data ... --model tiny".
Study study_of_line(const std::string& command, const std::vector<std::string>& factors,
                    const std::vector<std::string>& measures, int seeds);

}  // namespace moe
