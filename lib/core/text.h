// Text from values without fmt, for the floors that nvcc and bare machines compile: concat("k=", 9,
// " is more than E=", 8).
#pragma once
#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace moe {

// shortest decimal that reads back as the same double; "nan", "inf", "-inf"
std::string number_text(double);
std::string number_text(float);

namespace detail {
inline std::string piece(std::string_view s) {
  return std::string(s);
}
inline std::string piece(bool b) {
  return b ? "true" : "false";
}
inline std::string piece(char c) {
  return std::string(1, c);
}
inline std::string piece(double v) {
  return number_text(v);
}
inline std::string piece(float v) {
  return number_text(v);
}
template <std::integral T>
std::string piece(T v) {
  return std::to_string(v);
}
template <class T>
requires std::convertible_to<T, std::string_view> std::string piece(const T& s) {
  return std::string(std::string_view(s));
}
}  // namespace detail

template <class... A>
std::string concat(const A&... a) {
  std::string out;
  ((out += detail::piece(a)), ...);
  return out;
}

std::string join(const std::vector<std::string>&, std::string_view between = ", ");
// "a,,b" -> a, "", b; "" -> nothing
std::vector<std::string> split(std::string_view text, char separator);

// The name in `names` nearest to `word` by edit distance, or "" when none is near (more than a
// third of it differs).
std::string nearest(std::string_view word, const std::vector<std::string>& names);

// Sizes as people write them: "4096", "4k" (1e3), "4KiB", "1.5GB"; throws Error(usage) with `what`
// in the sentence.
std::int64_t parse_size(std::string_view text, std::string_view what);

}  // namespace moe
