// The values of a config.json, refused in a sentence with file and key where they are not what they
// must be.
#pragma once
#include <string>
#include <vector>

#include "lib/files/json.h"

namespace moe {

// What a config.json is read for: to compute the model, or for its sizes alone (moe plan). Then
// settings that this program does not compute and that change no size are let pass.
enum class ReadFor { computing, sizes };

class ConfigReader {
 public:
  ConfigReader(const Json& json, std::string file, ReadFor purpose = ReadFor::computing)
      : json_(json), file_(std::move(file)), purpose_(purpose) {}

  bool only_sizes() const {
    return purpose_ == ReadFor::sizes;
  }
  [[noreturn]] void refuse(const std::string& what, const std::string& hint = "") const;
  // refuse(), but not where only sizes are wanted
  void cannot_compute(const std::string& what, const std::string& hint = "") const;
  bool has(const char* key) const;      // there and not null
  bool is_null(const char* key) const;  // there, and null
  const Json& at(const char* key) const;
  int whole(const char* key, int fallback = -1) const;  // from 0; -1 = must be there
  int positive(const char* key) const;                  // from 1, must be there
  int layers(const char* key) const;                    // a number of layers that can be believed
  double real(const char* key, double fallback) const;
  bool flag(const char* key, bool fallback) const;
  bool must_say(const char* key) const;  // a flag that must be there
  std::string text(const char* key) const;
  std::string text(const char* key, const std::string& fallback) const {
    return has(key) ? text(key) : fallback;
  }
  std::vector<int> wholes(const char* key) const;  // empty where absent
  std::vector<double> reals(const char* key) const;
  std::vector<std::string> texts(const char* key) const;  // empty where absent
  ConfigReader in(const char* key) const;                 // of an object inside
  // a switch whose other setting would be another model, of other sizes
  void must_be(const char* key, bool value, bool fallback) const;
  // a setting whose others are not computed; absent is right too
  void must_be(const char* key, const std::string& value) const;

  // the same file, read from other values; they must outlive what is made
  ConfigReader with(const Json& values) const {
    return {values, file_, purpose_};
  }
  const Json& json() const {
    return json_;
  }
  const std::string& file() const {
    return file_;
  }

 private:
  const Json& json_;
  std::string file_;
  ReadFor purpose_;
};

}  // namespace moe
