// What `--metric` may be given: metrics, or ids of single figures.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "analysis/table.h"

namespace moe {

// "load", "paths:top=5", and "load_cv", which runs the metric that gives it and keeps of the report
// what shows it.
class Selection {
 public:
  // Throws Error(usage) for the id of a figure that no report of one trace has.
  explicit Selection(const std::vector<std::string>& words);

  const std::vector<std::string>& specs() const {  // for analyze(); empty: all metrics
    return specs_;
  }
  // Leaves only columns of what was asked for, beside the keys of their tables, and the findings
  // that speak of them. Nothing is left out where no id was given.
  void keep_in(Report&) const;

 private:
  bool keeps(const std::string& id) const;
  std::vector<std::string> specs_;
  std::set<std::string> metrics_, ids_;  // given by name; given by id
};

}  // namespace moe
