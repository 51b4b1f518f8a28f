#include "lib/core/text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"

namespace moe {
namespace {

template <class T>
std::string shortest(T v) {
  if (std::isnan(v))
    return "nan";
  if (std::isinf(v))
    return v > 0 ? "inf" : "-inf";
  char text[64];
  const auto [end, code] = std::to_chars(text, text + sizeof text, v);
  return {text, end};
}

std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t up = row[j];
      row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row.back();
}

}  // namespace

std::string number_text(double v) {
  return shortest(v);
}
std::string number_text(float v) {
  return shortest(v);
}

std::string join(const std::vector<std::string>& parts, std::string_view between) {
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i)
    out.append(i ? between : "").append(parts[i]);
  return out;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto at = text.find(separator);
    out.emplace_back(text.substr(0, at));
    if (at == text.npos)
      break;
    text.remove_prefix(at + 1);
    if (text.empty())
      out.emplace_back();
  }
  return out;
}

std::string nearest(std::string_view word, const std::vector<std::string>& names) {
  std::string best;
  std::size_t least = word.size() / 3 + 2;
  for (const std::string& name : names) {
    if (name.starts_with(word) && word.size() >= 2)
      return name;
    if (const std::size_t d = edits(word, name); d < least && d < name.size()) {
      least = d;
      best = name;
    }
  }
  return best;
}

std::int64_t parse_size(std::string_view text, std::string_view what) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(end, text.data() + text.size());
  std::ranges::transform(unit, unit.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  static constexpr struct {
    std::string_view name;
    double factor;
  } units[] = {{"", 1},
               {"b", 1},
               {"k", 1e3},
               {"kb", 1e3},
               {"kib", 1024},
               {"m", 1e6},
               {"mb", 1e6},
               {"mib", 1048576.0},
               {"g", 1e9},
               {"gb", 1e9},
               {"gib", 1073741824.0},
               {"t", 1e12},
               {"tb", 1e12},
               {"tib", 1099511627776.0}};
  for (const auto& u : units) {
    if (code == std::errc{} && u.name == unit && value >= 0 && value * u.factor < 9e18)
      return std::int64_t(std::llround(value * u.factor));
  }
  throw Error(Exit::usage, concat(what, " '", text, "' is not a size"))
      .hint("write it like 4096, 64k, 1.5GB or 512MiB");
}

}  // namespace moe
