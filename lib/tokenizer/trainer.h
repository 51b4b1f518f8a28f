// Byte-level byte pair encoding from text, equal to what the trainer of the library `tokenizers`
// makes of the same sequences: ids are special tokens, the 256 letters of bytes by code point, then
// merges; the most frequent pair merges first, of equal ones that with the smallest ids.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/tokenizer/model.h"
#include "lib/tokenizer/pre_tokenizer.h"

namespace moe {

struct BpeTraining {
  int vocabulary = 4096;       // special tokens, letters and merges together
  std::int64_t frequency = 2;  // a pair that is seen less often is not merged
  std::vector<std::string> special = {"<|endoftext|>"};
  std::string pattern;  // of the split: an expression (known_pattern)
};

class BpeTrainer {
 public:
  // Throws Error(usage) for sizes that hold nothing, Error(input) for a pattern that is none.
  explicit BpeTrainer(BpeTraining);
  // Counts the words of a sequence; words do not reach over its ends. Broken UTF-8 is made whole.
  void add(std::string_view sequence);
  std::int64_t words() const {
    return std::int64_t(counts_.size());
  }
  // Merges, and gives the tokenizer.json. `progress` is told how many ids there are.
  std::string train(const std::function<void(int ids)>& progress) const;

 private:
  BpeTraining training_;
  std::unique_ptr<PreTokenizer> split_;
  std::unordered_map<std::string, std::int64_t, TextHash, std::equal_to<>> counts_;
};

}  // namespace moe
