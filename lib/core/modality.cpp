#include "lib/core/modality.h"

#include <algorithm>
#include <charconv>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

const std::vector<std::string>& modality_names() {
  static const std::vector<std::string> names = {"text", "image", "video", "audio"};
  return names;
}

std::uint8_t modality_of(std::string_view name, const std::string& where) {
  const auto& names = modality_names();
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    throw Error(Exit::usage, concat(where, ": '", name, "' is not a modality"))
        .hint(concat("one of ", join(names)));
  }
  return std::uint8_t(found - names.begin());
}

std::vector<std::pair<std::string, std::string>> parts_by_modality(const std::string& text,
                                                                   const std::string& where) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const std::string& part : split(text, '/')) {
    const std::size_t colon = part.find(':');
    if (colon == 0 || colon == part.npos || colon + 1 == part.size()) {
      throw Error(Exit::usage, concat(where, "=", text, ": '", part, "' is not MODALITY:VALUE"))
          .hint("parts such as text:0-3, joined by /");
    }
    out.emplace_back(part.substr(0, colon), part.substr(colon + 1));
  }
  return out;
}

namespace {

double number(const std::string& text, double least, const std::string& where) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size() || value != value)
    throw Error(Exit::usage, concat(where, ": '", text, "' is not a number"));
  if (!(value >= least))
    throw Error(Exit::usage, concat(where, ": ", text, " must be at least ", least));
  return value;
}

}  // namespace

ByModality numbers_by_modality(const std::string& text, double absent, double least,
                               const std::string& where) {
  ByModality out{};
  if (text.find(':') == text.npos) {
    out.fill(number(text, least, where));
    return out;
  }
  out.fill(absent);
  for (const auto& [name, value] : parts_by_modality(text, where))
    out[modality_of(name, where)] = number(value, least, where);
  return out;
}

}  // namespace moe
