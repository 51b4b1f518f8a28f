// The parts of a model that train, and how fast: parameters in groups by what they belong to.
#pragma once
#include <map>

#include "lib/model/decoder.h"

namespace moe {

// router, experts, shared, attention, dense, norms, embedding (the output matrix too)
std::string group_of(const std::string& parameter);
const std::vector<std::string>& parameter_groups();

class Parts {
 public:
  // trained: "all", or groups with semicolons between, "router;experts=1,3" (experts 1 and 3 of
  // every layer); factors of the learning rate: "router=0.1,experts=2". Throws Error(usage) for an
  // unknown group, one that the model has not, an expert that is not there.
  Parts(const std::string& trained, const std::string& factors, Decoder<float>&);

  bool trains(const std::string& group) const {
    return all_ || trained_.contains(group);
  }
  // those that train; empty = all, where the group trains
  const std::vector<int>& experts() const {
    return experts_;
  }
  bool trains_expert(int e) const;
  double factor(const std::string& group) const;

 private:
  bool all_ = false;
  std::map<std::string, bool> trained_;
  std::map<std::string, double> factor_;
  std::vector<int> experts_;
};

}  // namespace moe
