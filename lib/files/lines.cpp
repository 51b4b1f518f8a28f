#include "lib/files/lines.h"

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::size_t buffer_bytes = 1 << 16, longest_word = 255;

bool is_blank(int c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

}  // namespace

bool ByteReader::fill() {
  buffer_.resize(buffer_bytes);
  buffer_.resize(file_.read(buffer_));
  at_ = 0;
  return !buffer_.empty();
}

bool LineReader::next(std::string& line) {
  line.clear();
  int c = bytes_.next();
  if (c < 0)
    return false;
  ++number_;
  for (; c >= 0 && c != '\n'; c = bytes_.next()) {
    if (line.size() == limit_)
      refuse(concat("has more than ", limit_, " bytes"), "shorter lines, or another format");
    line += char(c);
  }
  if (line.ends_with('\r'))
    line.pop_back();
  return true;
}

void LineReader::refuse(const std::string& why, const std::string& hint) const {
  throw Error(Exit::input, concat(in_quotes(bytes_.path()), " line ", number_, " ", why))
      .hint(hint);
}

bool WordReader::next(std::string& word) {
  word.clear();
  int c = bytes_.next();
  while (is_blank(c))
    c = bytes_.next();
  for (; c >= 0 && !is_blank(c); c = bytes_.next()) {
    if (word.size() <= longest_word)
      word += char(c);
  }
  return !word.empty();
}

bool JsonLineReader::next(nlohmann::json& value) {
  do {
    if (!lines_.next(line_))
      return false;
  } while (line_.find_first_not_of(" \t\r") == line_.npos);
  value = nlohmann::json::parse(line_, nullptr, false);
  if (value.is_discarded())
    refuse("is not JSON");
  return true;
}

}  // namespace moe
