// Which experts are stored in how few bits: all alike, the most used kept as they are, or each in
// the format that costs least of what the model puts out under a limit of bytes.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "lib/checkpoint/quant/few_bits.h"
#include "lib/edit/edit.h"
#include "lib/family/families.h"

namespace moe {

enum class QuantiseBy { nothing, load, importance };

struct QuantiseOptions {
  std::vector<FewBitsFormat> formats;  // several: one is chosen for each expert
  QuantiseBy by = QuantiseBy::nothing;
  double keep = 0;   // share of all experts that stay as they are, the highest scores
  double bytes = 0;  // limit: share of the bytes that the experts take now; 0 = none
};

struct Quantisation {
  std::map<std::string, FewBitsFormat> of;  // by tensor; the others stay
  std::vector<std::string> changes;         // what was done, a sentence each
  Index before = 0, after = 0;              // bytes of the experts
};

// Scores are (MoE layers)(E); of `importance` the sum over tokens of weight times output norm. An
// expert's cost in a format is its score times the squared error of its numbers, relative to their
// squares; under a limit experts are raised from the smallest format, those first that save most
// cost a byte (a greedy choice on the lower convex hull of each expert's formats).
// `bytes_of_number`: of a tensor as it would stand otherwise.
Quantisation quantise(Decoder<float>&, const std::string& family, const QuantiseOptions&,
                      const ExpertScores&,
                      const std::function<Index(const std::string&)>& bytes_of_number);

}  // namespace moe
