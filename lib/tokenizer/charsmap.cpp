#include "lib/tokenizer/charsmap.h"

#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {

Charsmap::Charsmap(std::string_view bytes, std::string_view source) {
  std::uint32_t size = 0;
  if (bytes.size() >= 4)
    std::memcpy(&size, bytes.data(), 4);
  if (bytes.size() < 4 || size % 4 != 0 || size == 0 || size > bytes.size() - 4) {
    throw Error(Exit::input,
                concat(in_quotes(source), ": the table of rewritten characters has ", bytes.size(),
                       " bytes and says that ", size, " of them are its index"))
        .hint("fetch the file again");
  }
  units_.resize(size / 4);
  std::memcpy(units_.data(), bytes.data() + 4, size);
  strings_ = bytes.substr(4 + size);
}

std::string Charsmap::bytes() const {
  if (empty())
    return "";
  const auto size = std::uint32_t(units_.size() * sizeof units_[0]);
  std::string out(sizeof size + size, '\0');
  std::memcpy(out.data(), &size, sizeof size);
  std::memcpy(out.data() + sizeof size, units_.data(), size);
  return out + strings_;
}

// The double array of Darts-clone: a unit holds a label, where its children are, and whether a
// value ends there.
std::optional<Charsmap::Rule> Charsmap::find(std::string_view text, bool first_only) const {
  const auto offset = [](std::uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
  };
  std::optional<Rule> found;
  if (units_.empty())
    return found;
  std::size_t node = offset(units_[0]);
  for (std::size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    const std::uint32_t c = static_cast<unsigned char>(text[i]);
    node ^= c;
    if (node >= units_.size())
      return found;
    const std::uint32_t unit = units_[node];
    if ((unit & 0x800000FFu) != c)
      return found;
    node ^= offset(unit);
    if (!(unit >> 8 & 1))
      continue;
    if (node >= units_.size())
      return found;
    const std::size_t at = units_[node] & 0x7FFFFFFFu;
    if (at >= strings_.size())
      return found;
    const std::size_t end = std::min(strings_.find('\0', at), strings_.size());
    found = Rule{i + 1, std::string_view(strings_).substr(at, end - at)};
    if (first_only)
      return found;
  }
  return found;
}

std::optional<Charsmap::Rule> Charsmap::shortest(std::string_view text) const {
  return find(text, true);
}

std::optional<Charsmap::Rule> Charsmap::longest(std::string_view text) const {
  return find(text, false);
}

}  // namespace moe
