// The options of a verb, without CLI11's headers: with those a verb took 9 to 15 s of processor
// time to compile at -O1. CLI11 itself is named only in main.cpp, command_line.cpp, arguments.cpp
// and where the table of all options is read: help, find, manual, search, completions.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace moe {

// What a value may be, asked before it is converted: may rewrite the word, and returns a sentence
// that says what is wrong with it, or nothing.
using Check = std::function<std::string(std::string& word)>;

// An option that was added: its handle, valid as long as the program's command line.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option& type_name(const std::string&);  // what stands for the value in --help
  Option& group(const std::string&);      // the heading it stands under
  Option& check(Check);
  Option& required();
  Option& repeatable();  // given again, it adds a value
  Option& environment(const std::string& variable);
  Option& show_default();                    // in --help: the variable's present value
  Option& show_default(const std::string&);  // in --help: this text
  Option& excludes(const Option&);
  bool given() const;
  std::string name() const;  // "--steps", or the name of an argument
  std::string group() const;

 private:
  CLI::Option* option_;
};

// The options of one verb, or of one subject of a verb ("moe bench layer"). Values are written to
// the variables when the command line is parsed, so these must outlive it.
class CommandLine {
 public:
  explicit CommandLine(CLI::App& app) : app_(&app) {}

  // names: "-o,--output" for an option, "path" for an argument.
  Option add_option(const std::string& names, std::string& value, const std::string& about) const;
  Option add_option(const std::string& names, int& value, const std::string& about) const;
  Option add_option(const std::string& names, std::int64_t& value, const std::string& about) const;
  Option add_option(const std::string& names, std::uint64_t& value, const std::string& about) const;
  Option add_option(const std::string& names, double& value, const std::string& about) const;
  Option add_option(const std::string& names, std::vector<std::string>& value,
                    const std::string& about) const;
  Option add_option(const std::string& names, std::vector<int>& value,
                    const std::string& about) const;
  Option add_option(const std::string& names, std::vector<std::int64_t>& value,
                    const std::string& about) const;
  Option add_flag(const std::string& names, bool& value, const std::string& about) const;

  // A subject of this verb; one of them has to be given.
  CommandLine add_subject(const std::string& name, const std::string& about,
                          const std::string& footer) const;
  bool parsed() const;                        // it is the subject that was given
  bool given(const std::string& name) const;  // the option "--name" was given
  std::vector<Option> options() const;
  const CLI::App& app() const {
    return *app_;
  }

 private:
  CLI::App* app_;
};

}  // namespace moe
