// What a shell may offer for the word that is being typed: verbs, options, names of the registries,
// keys of their specs.
#pragma once
#include <string>
#include <vector>

namespace CLI {
class App;
}  // namespace CLI

namespace moe {

struct Candidate {
  std::string word, about;
};
// Stands for the names of files.
constexpr const char* any_file = ":files";

// `words`: what stands behind "moe", the last one unfinished and perhaps empty. A candidate that
// ends in ":", "," or "=" goes on without a blank.
std::vector<Candidate> candidates(const CLI::App& program, const std::vector<std::string>& words);

}  // namespace moe
