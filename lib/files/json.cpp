#include "lib/files/json.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/foreign.h"

namespace moe {
namespace {

struct Place {
  Index line = 1, column = 0;
};

// Walks the text and tells `place` how far the parser has come.
struct Cursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* at;
  Place* place;
  const char& operator*() const {
    return *at;
  }
  Cursor& operator++() {
    if (*at++ == '\n') {
      ++place->line;
      place->column = 0;
    } else {
      ++place->column;
    }
    return *this;
  }
  Cursor operator++(int) {
    Cursor before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Cursor& o) const {
    return at == o.at;
  }
};

std::string reason(const Json::exception& e) {
  std::string text = e.what();
  if (const auto at = text.find("column "); at != text.npos) {
    if (const auto colon = text.find(": ", at); colon != text.npos)
      text.erase(0, colon + 2);
  }
  return text.substr(0, std::min<std::size_t>(text.find("; last read"), 160));
}

void check_finite(const Json& j, const std::string& where) {
  if (j.is_number_float() && !std::isfinite(j.get<double>())) {
    throw Error(Exit::numeric, fmt::format("the value {} of '{}' cannot be written as JSON",
                                           number_text(j.get<double>()), where.substr(0, 200)));
  }
  if (j.is_object()) {
    for (const auto& [key, value] : j.items())
      check_finite(value, where.empty() ? key : where + "." + key);
  }
  if (j.is_array()) {
    for (std::size_t i = 0; i < j.size(); ++i)
      check_finite(j[i], fmt::format("{}[{}]", where, i));
  }
}

}  // namespace

namespace {

// Stands for Infinity while the text is parsed; as long as the word, so that columns stay.
constexpr std::string_view infinity = "1.79e308";

// Whether an odd number of backslashes stands before text[i].
bool is_escaped(std::string_view text, std::size_t i) {
  std::size_t backslashes = 0;
  while (backslashes < i && text[i - 1 - backslashes] == '\\')
    ++backslashes;
  return backslashes % 2 == 1;
}

// The text with Python's words outside strings replaced by JSON.
std::string without_python_words(std::string_view text) {
  std::string out;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = text.substr(i);
    if (!quoted && rest.starts_with("Infinity")) {
      out += infinity;
      i += infinity.size() - 1;
    } else if (!quoted && rest.starts_with("NaN")) {
      out += "null";
      i += 2;
    } else {
      if (text[i] == '"' && !(quoted && is_escaped(text, i)))
        quoted = !quoted;
      out += text[i];
    }
  }
  return out;
}

void restore_infinity(Json& value) {
  constexpr double stand_in = 1.79e308;
  if (value.is_number_float() && std::abs(value.get<double>()) == stand_in)
    value = std::copysign(std::numeric_limits<double>::infinity(), value.get<double>());
}

}  // namespace

namespace {

// Builds the tree as the parser walks: a key that an object has already is seen where it is put in,
// so that files of a hundred thousand keys need no second list of them.
class TreeBuilder final : public nlohmann::json_sax<Json> {
 public:
  using Refuse = std::function<Error(const std::string&)>;
  TreeBuilder(const JsonLimits& limits, Refuse refuse)
      : limits_(limits), refuse_(std::move(refuse)) {}

  Json take() {
    return std::move(tree_);
  }
  bool null() override {
    return put(nullptr);
  }
  bool boolean(bool value) override {
    return put(value);
  }
  bool number_integer(number_integer_t value) override {
    return put(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return put(value);
  }
  bool number_float(number_float_t value, const string_t&) override {
    Json number(value);
    if (limits_.python_words)
      restore_infinity(number);
    return put(std::move(number));
  }
  bool string(string_t& value) override {
    return put(std::move(value));
  }
  bool binary(binary_t& value) override {
    return put(std::move(value));
  }
  bool start_object(std::size_t) override {
    return open(Json::object());
  }
  bool key(string_t& name) override {
    auto& object = open_.back()->get_ref<Json::object_t&>();
    const auto [at, is_new] = object.emplace(std::move(name), nullptr);
    if (!is_new)
      throw refuse_(fmt::format("the key {} occurs twice", in_quotes(at->first)));
    member_ = &at->second;
    return true;
  }
  bool end_object() override {
    return close();
  }
  bool start_array(std::size_t) override {
    return open(Json::array());
  }
  bool end_array() override {
    return close();
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception& e) override {
    throw refuse_(reason(e));
  }

 private:
  // Where the next value goes: the root, behind an array's last, or the member named last.
  Json& place() {
    if (int(open_.size()) >= limits_.depth)
      throw refuse_(fmt::format("nested more than {} deep", limits_.depth));
    if (open_.empty())
      return tree_;
    if (open_.back()->is_object())
      return *member_;
    return open_.back()->emplace_back();
  }
  template <class Value>
  bool put(Value&& value) {
    place() = Json(std::forward<Value>(value));
    return true;
  }
  bool open(Json empty) {
    Json& at = place();
    at = std::move(empty);
    open_.push_back(&at);
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  Refuse refuse_;
  Json tree_;
  std::vector<Json*> open_;  // an array grows only while it is the innermost, so these stay
  Json* member_ = nullptr;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view name, const JsonLimits& limits) {
  std::string replaced;
  if (limits.python_words) {
    replaced = without_python_words(text);
    text = replaced;
  }
  Place place;
  const auto refuse = [&](const std::string& why) -> Error {
    return {Exit::input, fmt::format("{} line {}, column {}: {}", in_quotes(name), place.line,
                                     place.column, why)};
  };
  if (Index(text.size()) > limits.bytes) {
    throw Error(Exit::input, fmt::format("{} has {} bytes, more than the {} such a file may have",
                                         in_quotes(name), text.size(), limits.bytes));
  }
  TreeBuilder tree(limits, refuse);
  Json::sax_parse(Cursor{text.data(), &place}, Cursor{text.data() + text.size(), &place}, &tree);
  // the parser takes it for the end
  if (text.find('\0') != text.npos)
    throw refuse("a zero byte");
  return tree.take();
}

Json read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  const std::string text = read_file(path, limits.bytes);
  if (!text.starts_with('{') && !text.starts_with('['))
    refuse_foreign(path, "JSON");
  return parse_json(text, path.native(), limits);
}

std::string json_text(const Json& j) {
  check_finite(j, "");
  // file names need not be UTF-8
  return j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_json(const std::filesystem::path& path, const Json& j) {
  write_file(path, json_text(j));
}

double json_number(float v) {
  return std::isfinite(v) ? std::strtod(number_text(v).c_str(), nullptr) : double(v);
}

}  // namespace moe
