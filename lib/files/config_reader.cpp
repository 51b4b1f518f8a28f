// Single values of a config.json, and the sentences that refuse them.
#include "lib/files/config_reader.h"

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr int most_layers = 10'000;

}  // namespace

void ConfigReader::refuse(const std::string& what, const std::string& hint) const {
  throw Error(Exit::input, concat(file_, ": ", what)).hint(hint);
}
void ConfigReader::cannot_compute(const std::string& what, const std::string& hint) const {
  if (!only_sizes())
    refuse(what, hint);
}
bool ConfigReader::has(const char* key) const {
  return json_.contains(key) && !json_[key].is_null();
}
bool ConfigReader::is_null(const char* key) const {
  return json_.contains(key) && json_[key].is_null();
}
const Json& ConfigReader::at(const char* key) const {
  if (!has(key))
    refuse(concat(key, " is missing"));
  return json_[key];
}
int ConfigReader::whole(const char* key, int fallback) const {
  if (!has(key) && fallback >= 0)
    return fallback;
  const Json& v = at(key);
  if (!v.is_number_integer() || v < 0 || v > 1'000'000'000)
    refuse(concat(key, " is ", v.dump(), " and must be a whole number from 0 to 1e9"));
  return v;
}
int ConfigReader::positive(const char* key) const {
  const int v = whole(key);
  if (v < 1)
    refuse(concat(key, " is ", v, " and must be at least 1"));
  return v;
}
int ConfigReader::layers(const char* key) const {
  const int v = positive(key);
  if (v > most_layers)
    refuse(concat(key, " is ", v, ", more than the ", most_layers, " that are believed"));
  return v;
}
double ConfigReader::real(const char* key, double fallback) const {
  if (!has(key))
    return fallback;
  if (!json_[key].is_number())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a number"));
  return json_[key];
}
bool ConfigReader::flag(const char* key, bool fallback) const {
  if (!has(key))
    return fallback;
  if (!json_[key].is_boolean())
    refuse(concat(key, " is ", json_[key].dump(), " and must be true or false"));
  return json_[key];
}
bool ConfigReader::must_say(const char* key) const {
  at(key);
  return flag(key, false);
}
std::string ConfigReader::text(const char* key) const {
  if (!at(key).is_string())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a text"));
  return json_[key];
}
std::vector<int> ConfigReader::wholes(const char* key) const {
  std::vector<int> out;
  if (!has(key))
    return out;
  if (!json_[key].is_array())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a list of whole numbers"));
  for (const Json& v : json_[key]) {
    if (!v.is_number_integer() || v < 0 || v > 1'000'000'000)
      refuse(concat(key, " holds ", v.dump(), " and must be a list of whole numbers"));
    out.push_back(v);
  }
  return out;
}
std::vector<double> ConfigReader::reals(const char* key) const {
  std::vector<double> out;
  if (!at(key).is_array())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a list of numbers"));
  for (const Json& v : json_[key]) {
    if (!v.is_number())
      refuse(concat(key, " holds ", v.dump(), " and must be a list of numbers"));
    out.push_back(v);
  }
  return out;
}
std::vector<std::string> ConfigReader::texts(const char* key) const {
  std::vector<std::string> out;
  if (!has(key))
    return out;
  if (!json_[key].is_array())
    refuse(concat(key, " is ", json_[key].dump(), " and must be a list of texts"));
  for (const Json& v : json_[key]) {
    if (!v.is_string())
      refuse(concat(key, " holds ", v.dump(), " and must be a list of texts"));
    out.push_back(v);
  }
  return out;
}
ConfigReader ConfigReader::in(const char* key) const {
  if (!at(key).is_object())
    refuse(concat(key, " is ", json_[key].dump(), " and must be an object"));
  return {json_[key], concat(file_, ", ", key), purpose_};
}
void ConfigReader::must_be(const char* key, bool value, bool fallback) const {
  if (flag(key, fallback) != value) {
    refuse(concat(key, has(key) ? " is " : " is absent and so ", value ? "false" : "true",
                  " and this program has no such switch"));
  }
}
void ConfigReader::must_be(const char* key, const std::string& value) const {
  if (has(key) && text(key) != value)
    cannot_compute(concat(key, " is '", text(key), "' and must be ", value));
}

}  // namespace moe
