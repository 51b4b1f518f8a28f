#include "lib/core/count.h"

#include <cctype>
#include <charconv>
#include <cmath>

#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double most = 9007199254740992;  // what a double holds to the last digit

// As many as the letter says, in thousands or in 1024s; 0 where it is none of these.
int power_of(char letter) {
  switch (letter) {
    case 'k':
    case 'K':
      return 1;
    case 'm':
    case 'M':
      return 2;
    case 'g':
    case 'G':
      return 3;
    default:
      return 0;
  }
}

// A number and what stands behind it, as 1.5 and Mi.
Count with_suffix(double number, std::string_view digits, std::string_view suffix) {
  const Count none{.value = 0, .wrong = "is not a whole number"};
  const int power = suffix.empty() || suffix.size() > 2 ? 0 : power_of(suffix[0]);
  const bool binary = suffix.size() == 2 && suffix[1] == 'i';
  if (power == 0 || (suffix.size() == 2 && !binary))
    return none;
  const double value = number * std::pow(1024.0, power);
  const double thousands = std::round(number * std::pow(1000.0, power));
  if (!(std::abs(value) <= most))
    return none;
  const bool whole = value == std::floor(value);
  if (binary)
    return whole ? Count{.value = std::int64_t(value), .wrong = ""} : none;
  const std::string decimal = concat(std::int64_t(thousands));
  if (!whole)
    return {.value = 0, .wrong = concat("can be read in two ways: write ", decimal)};
  const char letter = char(std::toupper(static_cast<unsigned char>(suffix[0])));
  const std::string other = concat(std::int64_t(value));
  return {.value = 0,
          .wrong = concat("is ", decimal, " to some and ", other, " to others: write ", decimal,
                          ", or ", digits, letter, "i for ", other)};
}

}  // namespace

Count read_count(std::string_view text) {
  const bool plus = text.starts_with('+') && text.size() > 1 && text[1] != '-';
  const std::string_view word = text.substr(plus ? 1 : 0);
  const char* last = word.data() + word.size();
  Count out;
  const auto [end, error] = std::from_chars(word.data(), last, out.value);
  if (error == std::errc{} && end == last)
    return out;
  double number = 0;
  const auto [rest, code] = std::from_chars(word.data(), last, number, std::chars_format::fixed);
  if (code != std::errc{} || !std::isfinite(number))
    return {.value = 0, .wrong = "is not a whole number"};
  return with_suffix(number, word.substr(0, std::size_t(rest - word.data())),
                     word.substr(std::size_t(rest - word.data())));
}

}  // namespace moe
