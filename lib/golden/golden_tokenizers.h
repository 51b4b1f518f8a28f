// Tokenizers beside what their own libraries made of the same texts: folders of a kind with the
// tokenizer's file, strings and expected.json (the README of the golden data has the format), and
// malformed files under bad/.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace moe {

struct GoldenTokenizerResult {
  std::string name;  // of the kind; "bad/NAME" for a malformed file
  std::size_t cases = 0, failed = 0;
  std::string why;  // the first difference, or what was said of a malformed file
  bool passed() const {
    return failed == 0;
  }
};

// Whether a path is such a folder, one kind of it, or one case of a kind (KIND/s012).
bool is_golden_tokenizers(const std::filesystem::path&);
// Throws Error(input) for golden data that cannot be read.
std::vector<GoldenTokenizerResult> verify_golden_tokenizers(const std::filesystem::path&);

}  // namespace moe
