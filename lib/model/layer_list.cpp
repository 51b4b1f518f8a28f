#include "lib/model/layer_list.h"

#include <algorithm>
#include <charconv>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"
#include "lib/core/view.h"

namespace moe {
namespace {

Index times_of(std::string_view word, const std::string& list, const char* field) {
  Index n = 0;
  const auto [end, failed] = std::from_chars(word.data(), word.data() + word.size(), n);
  if (failed != std::errc() || end != word.data() + word.size() || n < 1) {
    throw Error(Exit::usage, concat("'", word, "' in ", field, "={", list,
                                    "} is not a number of layers of 1 or more"))
        .hint(
            "entries are separated by + and repeated by x, behind their options: "
            "mixer={short_conv:kernel=3x2+attention}");
  }
  return n;
}

}  // namespace

// "a*3;b" -> a, a, a, b
std::vector<std::string> layer_pattern(const std::string& list, int layers, const char* field) {
  std::vector<std::string> out;
  for (const std::string& entry : split_list(list, ";+")) {
    const auto [name, count] = repeated_entry(entry);
    const Index times = times_of(count, list, field);
    if (times > Index(layers) - Index(out.size())) {
      throw Error(Exit::usage, concat(field, "={", list, "} names more layers than the ", layers,
                                      " of the model"))
          .hint("a shorter pattern is repeated over the layers");
    }
    out.insert(out.end(), std::size_t(times), name);
  }
  return out;
}

std::vector<std::string> layer_entries(const std::string& list, int layers, const char* field) {
  const std::vector<std::string> pattern = layer_pattern(list, layers, field);
  if (pattern.empty())
    throw Error(Exit::bug, concat(field, " is an empty list"));
  std::vector<std::string> out;
  for (std::size_t l = 0; l < std::size_t(layers); ++l)
    out.push_back(pattern[l % pattern.size()]);
  return out;
}

std::string layer_list(std::vector<std::string> pattern) {
  if (std::ranges::count(pattern, pattern[0]) == std::ptrdiff_t(pattern.size()))
    pattern.resize(1);
  std::string out;
  for (std::size_t i = 0; i < pattern.size();) {
    std::size_t n = 1;
    while (i + n < pattern.size() && pattern[i + n] == pattern[i])
      ++n;
    out += concat(out.empty() ? "" : ";", pattern[i], n > 1 ? concat("*", n) : "");
    i += n;
  }
  return out;
}

}  // namespace moe
