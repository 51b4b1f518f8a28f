#include "apps/values.h"

#include <algorithm>
#include <charconv>

#include "lib/core/count.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// The whole word as one number, or false. A plus sign is let through; blanks, 0x and 1' are not.
bool reads(const std::string& word, double& value) {
  const char* first = word.data() + (word.starts_with('+') && word.size() > 1 && word[1] != '-');
  const char* last = word.data() + word.size();
  const auto [end, error] = std::from_chars(first, last, value);
  return error == std::errc{} && end == last;
}

}  // namespace

Check whole(std::int64_t least, std::int64_t most) {
  return [least, most](std::string& word) -> std::string {
    const auto [value, wrong] = read_count(word);
    if (!wrong.empty())
      return concat("'", word, "' ", wrong);
    if (value < least)
      return concat(value, " is less than ", least);
    if (value > most)
      return concat(value, " is more than ", most);
    word = concat(value);
    return "";
  };
}

Check real(double least, double most) {
  return [least, most](std::string& word) -> std::string {
    double value = 0;
    if (!reads(word, value) || value != value)
      return concat("'", word, "' is not a number");
    if (value < least)
      return concat(value, " is less than ", least);
    if (value > most)
      return concat(value, " is more than ", most);
    return "";
  };
}

Check one_of(std::vector<std::string> allowed) {
  return [allowed = std::move(allowed)](std::string& word) -> std::string {
    if (std::ranges::find(allowed, word) != allowed.end())
      return "";
    const std::string near = nearest(word, allowed);
    return concat("'", word, "' is not one of ", join(allowed),
                  near.empty() ? "" : concat("; did you mean ", near, "?"));
  };
}

}  // namespace moe
