// What the cases are made of: random matrices in a backend's memory, and routings with their plans.
#pragma once
#include <string>

#include "lib/check/check.h"
#include "lib/core/rng.h"

namespace moe::check {

class Inputs {
 public:
  Inputs(Backend<float>& backend, std::uint64_t seed) : backend_(backend), rng_(seed) {}

  Array<float> noise(Index rows, Index cols, double scale = 1);
  // NaN everywhere: what an operation sets, it must set
  Array<float> unset(Index rows, Index cols);
  // uniform below; a share `empty` is -1
  Array<int> ids(Index rows, Index cols, int below, double empty = 0);
  Array<int> counted(Index first, Index count);  // first, first+1, ...
  Rng& rng() {
    return rng_;
  }
  Backend<float>& backend() {
    return backend_;
  }

 private:
  Backend<float>& backend_;
  Rng rng_;
};

// experts chosen alike | expert 0 by half | expert 1 by all | some -1, one expert empty | all -1
enum class Spread { even, skewed, one, holes, none };
std::string_view name_of(Spread);

struct Sizes {
  Index tokens = 1, hidden = 1, width = 1;  // T, H, I
  int experts = 1, choices = 1;             // E, K
  Spread spread = Spread::even;
  std::string text() const;  // "T=70 H=33 I=17 E=5 K=2 skewed"
  Index slots() const;       // about how many are kept
};
Matrix<int> kept_choices(const Sizes&, Rng&);  // (T,K); the ids of a token differ
Plan plan_of(Inputs&, const Sizes&);

std::string activation_text(Activation);  // "swiglu", "swiglu to 1.5"

inline std::vector<Output> outputs(
    std::initializer_list<std::pair<const char*, const Array<float>*>> list) {
  std::vector<Output> out;
  for (const auto& [name, array] : list)
    out.push_back({name, array->to_host()});
  return out;
}

std::vector<Case> product_cases(bool bench);
std::vector<Case> routing_cases(bool bench);
std::vector<Case> expert_cases(bool bench);
std::vector<Case> row_cases(bool bench);
std::vector<Case> attention_cases(bool bench);
std::vector<Case> biased_attention_cases(bool bench);
std::vector<Case> head_cases(bool bench);
std::vector<Case> sequence_cases(bool bench);
std::vector<Case> layer_cases(bool bench);
std::vector<Case> on_device_cases(bool bench);

}  // namespace moe::check
