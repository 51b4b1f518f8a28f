// sentencepiece's table of rewritten characters ("precompiled_charsmap"): u32 size, a Darts double
// array of that many bytes, then strings ended by NUL. The array maps a prefix of the text to the
// place of what replaces it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

class Charsmap {
 public:
  Charsmap() = default;
  // throws Error(input), naming `source`, for a table that does not hold together
  Charsmap(std::string_view bytes, std::string_view source);

  struct Rule {
    std::size_t length;  // bytes of the text that it replaces
    std::string_view with;
  };
  // The rules whose left side the text starts with: the shortest one, and the longest one.
  std::optional<Rule> shortest(std::string_view text) const;
  std::optional<Rule> longest(std::string_view text) const;
  std::string bytes() const;  // as they were given; nothing for an empty one
  bool empty() const {
    return units_.empty();
  }

 private:
  std::optional<Rule> find(std::string_view text, bool first_only) const;

  std::vector<std::uint32_t> units_;
  std::string strings_;
};

}  // namespace moe
