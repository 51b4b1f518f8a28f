#include "apps/command_line.h"

#include <CLI/CLI.hpp>

namespace moe {

Option& Option::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}
Option& Option::group(const std::string& heading) {
  option_->group(heading);
  return *this;
}
Option& Option::check(Check check) {
  // CLI11's own check() gives it a copy of the word, and then reads 0100 as 64
  option_->transform(CLI::Validator(std::move(check), ""));
  return *this;
}
Option& Option::required() {
  option_->required();
  return *this;
}
Option& Option::repeatable() {
  option_->expected(1)->take_all();
  return *this;
}
Option& Option::environment(const std::string& variable) {
  option_->envname(variable);
  return *this;
}
Option& Option::show_default() {
  option_->capture_default_str();
  return *this;
}
Option& Option::show_default(const std::string& text) {
  option_->default_str(text);
  return *this;
}
Option& Option::excludes(const Option& other) {
  option_->excludes(other.option_);
  return *this;
}
bool Option::given() const {
  return option_->count() > 0;
}
std::string Option::name() const {
  return option_->get_name();
}
std::string Option::group() const {
  return option_->get_group();
}

#define MOE_ADD_OPTION(type)                                                                      \
  Option CommandLine::add_option(const std::string& names, type& value, const std::string& about) \
      const {                                                                                     \
    return Option(app_->add_option(names, value, about));                                         \
  }
MOE_ADD_OPTION(std::string)
MOE_ADD_OPTION(int)
MOE_ADD_OPTION(std::int64_t)
MOE_ADD_OPTION(std::uint64_t)
MOE_ADD_OPTION(double)
MOE_ADD_OPTION(std::vector<std::string>)
MOE_ADD_OPTION(std::vector<int>)
MOE_ADD_OPTION(std::vector<std::int64_t>)
#undef MOE_ADD_OPTION

Option CommandLine::add_flag(const std::string& names, bool& value,
                             const std::string& about) const {
  return Option(app_->add_flag(names, value, about));
}

CommandLine CommandLine::add_subject(const std::string& name, const std::string& about,
                                     const std::string& footer) const {
  app_->require_subcommand(1);
  CLI::App* subject = app_->add_subcommand(name, about);
  subject->set_help_flag("-h,--help", "show this help");
  subject->footer(footer);
  return CommandLine(*subject);
}
bool CommandLine::parsed() const {
  return app_->parsed();
}
bool CommandLine::given(const std::string& name) const {
  return app_->get_option(name)->count() > 0;
}
std::vector<Option> CommandLine::options() const {
  std::vector<Option> all;
  for (CLI::Option* o : app_->get_options([](const CLI::Option*) { return true; }))
    all.emplace_back(o);
  return all;
}

}  // namespace moe
