// What an option's value may be, checked before CLI11 converts it, so that the sentence is ours:
// "'1e3' is not a whole number", no octal from a leading zero, no NaN through a range.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace moe {

CLI::Validator whole(std::int64_t least,
                     std::int64_t most = std::numeric_limits<std::int64_t>::max());
CLI::Validator real(double least, double most);  // finite
CLI::Validator one_of(std::vector<std::string>);

// Options of a verb that stand under one heading of its --help.
class OptionGroup {
 public:
  OptionGroup(CLI::App& cli, std::string name) : cli_(cli), name_(std::move(name)) {}
  template <class T>
  CLI::Option* add(const char* name, T& value, const char* about) const {
    return cli_.add_option(name, value, about)->group(name_);
  }
  // A number, its default shown in --help.
  template <class T>
  CLI::Option* number(const char* name, T& value, const char* about,
                      const CLI::Validator& check) const {
    return add(name, value, about)->capture_default_str()->check(check);
  }
  // Text of a kind (SPEC, FILE, ...).
  CLI::Option* text(const char* name, std::string& value, const char* kind,
                    const char* about) const {
    return add(name, value, about)->type_name(kind);
  }
  // May be given again, a value each time.
  CLI::Option* repeatable(const char* name, std::vector<std::string>& values,
                          const char* about) const {
    return add(name, values, about)->expected(1)->take_all();
  }

 private:
  CLI::App& cli_;
  std::string name_;
};

}  // namespace moe
