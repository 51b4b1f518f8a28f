// A text cut by a pattern: the matches from the left, and the gaps between them. The known split
// patterns are scanners written by hand, a class with a count is walked, everything else goes
// through PCRE2 with the classes written out as ranges of our own tables.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

struct Match {
  std::uint32_t begin, end;
  bool is_match;
};
using Matches = std::vector<Match>;

class SplitPattern {
 public:
  virtual ~SplitPattern() = default;
  // Matches and gaps that together are the text, in order; what stands outside `text` is not
  // looked at.
  virtual void find(std::string_view text, Matches& out) const = 0;
};

// A regular expression as Oniguruma reads it. Throws Error(input), naming `source`, for what is
// none.
std::unique_ptr<SplitPattern> make_pattern(std::string_view expression, std::string_view source);
// The same without the scanners: what they are compared with.
std::unique_ptr<SplitPattern> make_general_pattern(std::string_view expression,
                                                   std::string_view source);
std::unique_ptr<SplitPattern> make_literal(std::string text);
// {"Regex": ...}, {"String": ...} or a bare text, as fields of a tokenizer.json
std::unique_ptr<SplitPattern> read_pattern(const nlohmann::json&, std::string_view source);

// Each character with one of these bits (char_class) is a match.
std::unique_ptr<SplitPattern> make_char_pattern(std::uint16_t bits);

// The pattern of a scanner by its short name (gpt2, llama3, qwen2, ...); "" = none of that name.
std::string_view known_pattern(std::string_view name);
std::vector<std::string> known_pattern_names();

}  // namespace moe
