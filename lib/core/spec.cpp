#include "lib/core/spec.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "lib/core/count.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// The length of the text up to the next comma outside braces.
std::size_t option_length(std::string_view text, std::string_view whole) {
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{')
      ++depth;
    if (text[i] == '}' && --depth < 0)
      break;
    if (text[i] == ',' && depth == 0)
      return i;
  }
  if (depth != 0)
    throw Error(Exit::usage, concat("'", whole, "': braces do not match"))
        .hint("single quotes around a spec with braces: a shell ends the command at ;");
  return text.size();
}

double number(const std::string& spec, std::string_view key, const std::string& text) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size() || value != value)
    throw Error(Exit::usage, concat(spec, ": ", key, "=", text, " is not a number"));
  return value;
}

int whole_number(const std::string& spec, std::string_view key, const std::string& text) {
  Count count = read_count(text);
  if (count.wrong.empty() && !std::in_range<int>(count.value))
    count.wrong = count.value < 0 ? "is less than -2147483648" : "is more than 2147483647";
  if (!count.wrong.empty())
    throw Error(Exit::usage, concat(spec, ": ", key, "=", text, " ", count.wrong));
  return int(count.value);
}

}  // namespace

Spec::Spec(std::string_view text) {
  const auto colon = text.find(':');
  name_ = text.substr(0, colon);
  if (name_.empty()) {
    throw Error(Exit::usage, concat("'", text, "' names nothing"))
        .hint("write NAME or NAME:key=value,...");
  }
  if (colon == text.npos)
    return;
  for (std::string_view rest = text.substr(colon + 1); !rest.empty();) {
    const std::size_t length = option_length(rest, text);
    const std::string_view option = rest.substr(0, length);
    const auto equals = option.find('=');
    if (equals == option.npos || equals == 0)
      throw Error(Exit::usage, concat("'", text, "': expected key=value, got '", option, "'"));
    const std::string_view key = option.substr(0, equals);
    std::string_view value = option.substr(equals + 1);
    if (value.size() >= 2 && value.front() == '{' && value.back() == '}')
      value = value.substr(1, value.size() - 2);
    if (given(key))
      throw Error(Exit::usage, concat("'", text, "': ", key, " is given twice"));
    given_.emplace_back(key, value);
    rest = length == rest.size() ? std::string_view{} : rest.substr(length + 1);
  }
}

const std::string* Spec::given(std::string_view key) const {
  for (const auto& [k, v] : given_) {
    if (k == key)
      return &v;
  }
  return nullptr;
}
void Spec::record(std::string_view key, const std::string& value) {
  for (auto& [k, v] : asked_) {
    if (k == key)
      return void(v = value);
  }
  asked_.emplace_back(key, value);
}
bool Spec::has(std::string_view key) const {
  return given(key) != nullptr;
}
void Spec::set(std::string_view key, std::string_view value) {
  for (auto& [k, v] : given_) {
    if (k == key)
      return void(v = value);
  }
  given_.emplace_back(key, value);
}

void Spec::rename(std::string_view name) {
  name_ = name;
}
bool Spec::rename_option(std::string_view former, std::string_view now) {
  const auto at =
      std::ranges::find(given_, former, [](const auto& option) { return option.first; });
  if (at == given_.end())
    return false;
  if (has(now)) {
    throw Error(Exit::usage,
                concat(name_, ": ", former, " is the former name of ", now, ", and both are given"))
        .hint(concat("leave out ", former));
  }
  at->first = now;
  return true;
}

std::string Spec::get(std::string_view key, const char* fallback) {
  return get(key, std::string(fallback));
}
std::string Spec::get(std::string_view key, const std::string& fallback) {
  const std::string* text = given(key);
  const std::string value = text ? *text : fallback;
  record(key, value);
  return value;
}
int Spec::get(std::string_view key, int fallback, int least) {
  const std::string* text = given(key);
  const int value = text ? whole_number(name_, key, *text) : fallback;
  if (value < least)
    throw Error(Exit::usage, concat(name_, ": ", key, "=", value, " must be at least ", least));
  record(key, concat(value));
  return value;
}
double Spec::get(std::string_view key, double fallback, double least) {
  const std::string* text = given(key);
  const double value = text ? number(name_, key, *text) : fallback;
  if (!(value >= least))
    throw Error(Exit::usage, concat(name_, ": ", key, "=", value, " must be at least ", least));
  record(key, concat(value));
  return value;
}
bool Spec::get(std::string_view key, bool fallback) {
  const std::string text = get(key, fallback ? "1" : "0");
  if (text != "0" && text != "1" && text != "true" && text != "false")
    throw Error(Exit::usage, concat(name_, ": ", key, "=", text, " must be 0 or 1"));
  const bool value = text == "1" || text == "true";
  record(key, value ? "1" : "0");
  return value;
}
std::string Spec::choice(std::string_view key, const std::vector<std::string>& allowed) {
  const std::string value = get(key, allowed.front());
  if (std::ranges::find(allowed, value) == allowed.end()) {
    throw Error(Exit::usage, concat(name_, ": ", key, "=", value, " is not known"))
        .hint(concat(key, " is one of ", join(allowed)));
  }
  return value;
}

void Spec::done() const {
  std::vector<std::string> known;
  for (const auto& [k, v] : asked_)
    known.push_back(k);
  for (const auto& [key, value] : given_) {
    if (std::ranges::find(known, key) != known.end())
      continue;
    const std::string near = nearest(key, known);
    throw Error(Exit::usage, concat(name_, " has no option '", key, "'"))
        .hint(known.empty()
                  ? concat(name_, " takes no options")
                  : concat(near.empty() ? "" : concat("'", near, "'; "), "it has ", join(known)));
  }
}

namespace {
std::string written(const std::string& name,
                    const std::vector<std::pair<std::string, std::string>>& options) {
  std::string out = name;
  for (std::size_t i = 0; i < options.size(); ++i) {
    const auto& [k, v] = options[i];
    const bool odd = v.find_first_of(",{}:=") != v.npos;
    out += concat(i ? "," : ":", k, "=", odd ? "{" : "", v, odd ? "}" : "");
  }
  return out;
}
}  // namespace

std::string Spec::given_text() const {
  return written(name_, given_);
}
std::string Spec::resolved() const {
  return written(name_, asked_);
}

}  // namespace moe
