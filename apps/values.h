// What an option's value may be, checked before it is converted, so that the sentence is ours:
// "'1e3' is not a whole number", no octal from a leading zero, no NaN through a range.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>
#include "apps/command_line.h"

namespace moe {

Check whole(std::int64_t least, std::int64_t most = std::numeric_limits<std::int64_t>::max());
Check real(double least, double most);  // finite
Check one_of(std::vector<std::string>);

// Options of a verb that stand under one heading of its --help.
class OptionGroup {
 public:
  OptionGroup(const CommandLine& cli, std::string name) : cli_(cli), name_(std::move(name)) {}
  template <class T>
  Option add(const char* name, T& value, const char* about) const {
    return cli_.add_option(name, value, about).group(name_);
  }
  // A number, its default shown in --help.
  template <class T>
  Option number(const char* name, T& value, const char* about, Check check) const {
    return add(name, value, about).show_default().check(std::move(check));
  }
  // Text of a kind (SPEC, FILE, ...).
  Option text(const char* name, std::string& value, const char* kind, const char* about) const {
    return add(name, value, about).type_name(kind);
  }
  void flag(const char* name, bool& value, const char* about) const {
    cli_.add_flag(name, value, about).group(name_);
  }
  // May be given again, a value each time.
  Option repeatable(const char* name, std::vector<std::string>& values,
                    const std::string& about) const {
    return add(name, values, about.c_str()).repeatable();
  }

 private:
  CommandLine cli_;
  std::string name_;
};

}  // namespace moe
