// What `moe help WORD` looks through: verbs, their options, everything that can be chosen, fields
// of models, figures of reports, and the glossary.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "apps/command_line.h"

namespace moe {

struct Findable {
  std::string kind;   // "verb", "option of moe train", "router", "figure", "word"
  std::string name;   // "train", "--router", "softmax", "load_cv", "gate, gating network (门控)"
  std::string about;  // a sentence
  std::string command;
};

// Everything there is to find.
std::vector<Findable> entries(const CLI::App& program);

// Those that hold every word of the query, the closest first: names that are it, begin with it,
// hold it, then sentences that do. Upper and lower case are the same, and so are "-", "_" and
// blanks.
std::vector<Findable> found(const std::vector<Findable>& all,
                            const std::vector<std::string>& words);

// The nearest names to a word that nothing holds.
std::string nearest_name(const std::vector<Findable>& all, const std::string& word);

}  // namespace moe
