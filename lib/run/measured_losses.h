// Losses of one text measured many times with something missing, kept in a file as they come, so
// that a measurement that was stopped goes on: JSON lines, the first of them the losses with
// nothing missing, which also say whether a file is of the same model and text.
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/run/evaluation.h"

namespace moe {

class MeasuredLosses {
 public:
  // `whole`: with nothing missing; `how` says in a word how the rest fills the gap. Reads what the
  // file holds; a line that a kill cut short is taken off. "" = nothing is kept. Throws
  // Error(input) where the file is of other losses, or holds something else.
  MeasuredLosses(std::filesystem::path file, std::vector<DomainLoss> whole, const std::string& how);

  // of a name as "0:3" or "0:3,0:5"
  std::optional<std::vector<DomainLoss>> find(const std::string& missing) const;
  // Kept before this returns. Throws Error(io) where the file cannot be written.
  void add(const std::string& missing, const std::vector<DomainLoss>&);
  std::size_t size() const {
    return known_.size();
  }

 private:
  void read(const std::string& how);
  void append(const std::string& line) const;

  std::filesystem::path file_;
  std::vector<DomainLoss> whole_;
  std::map<std::string, std::vector<DomainLoss>> known_;
};

}  // namespace moe
