// The parts of a model that train, and how fast: parameters in groups by what they belong to.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace moe {

template <class S>
class Decoder;
template <class S>
class Parameter;

// Whether `trained`, in the words of Parts, names a group or says all.
bool trains_group(const std::string& trained, const std::string& group);

// router, experts, shared, each mixer by its name, dense, norms, streams, embedding (the output
// matrix too)
const std::vector<std::string>& parameter_groups();

class Parts {
 public:
  // trained: "all", or groups with semicolons or commas between, "router;experts=1,3" (experts 1
  // and 3 of every layer); factors of the learning rate: "router=0.1,experts=2", of single experts
  // of every layer "experts.3=0.5", and "experts=load": the square root of what an expert computed
  // in the step by the mean of its layer, as rates follow the size of a batch under Adam (Malladi
  // et al. 2022, arXiv 2205.10287). Throws Error(usage) for an unknown group, one that the model
  // has not, an expert that is not there.
  Parts(const std::string& trained, const std::string& factors, Decoder<float>&);

  bool trains(const std::string& group) const {
    return all_ || trained_.contains(group);
  }
  const std::string& group(const Parameter<float>&) const;  // of the model given
  bool trains(const Parameter<float>& p) const {
    return trains(group(p));
  }
  // those that train; empty = all, where the group trains
  const std::vector<int>& experts() const {
    return experts_;
  }
  bool trains_expert(int e) const;
  double factor(const Parameter<float>&) const;
  bool rates_experts() const {  // each by its own factor
    return by_load_ || !expert_factor_.empty();
  }
  // `kept` (E): choices of each expert that were computed in the step
  double expert_factor(int e, const std::vector<std::int64_t>& kept) const;

 private:
  void choose(const std::string& trained, int experts);
  void choose_group(const std::string& word, int experts);  // "router", "experts=1,3"
  void weigh(const std::string& factors, int experts);
  void check_group(const std::string&) const;  // throws where the model has none of the name

  bool all_ = false;
  std::map<std::string, std::string> group_;  // by name of the parameter
  std::set<std::string> has_, trained_;       // groups
  std::map<std::string, double> factor_;
  std::map<int, double> expert_factor_;
  bool by_load_ = false;
  std::vector<int> experts_;
};

}  // namespace moe
