#include "apps/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/brace_lists.h"
#include "apps/command.h"
#include "apps/terminal.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"
#include "lib/files/any_bytes.h"

namespace moe {
namespace {

std::string& typed() {
  static std::string line;
  return line;
}

// CLI11's sentences, said plainly: "--x: At Most 1 required but received 2", "--x: 1 required TEXT
// missing", "--x is required".
std::string in_our_words(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  while (text.ends_with(' '))
    text.pop_back();
  static constexpr std::string_view often = ": At Most 1 required but received ";
  static constexpr std::string_view unreadable = "Could not convert: ";
  if (const auto at = text.find(often); at != text.npos) {
    return concat(text.substr(0, at), " was given ", text.substr(at + often.size()),
                  " times and takes one value");
  }
  if (const auto at = text.find(": 1 required "); at != text.npos && text.ends_with(" missing"))
    return text.substr(0, at) + " needs a value";
  if (text.ends_with(" is required"))
    return text.substr(0, text.size() - std::string_view("required").size()) + "missing";
  if (text.starts_with(unreadable))
    return concat("the value of ", text.substr(unreadable.size()), " is out of range");
  return text;
}

std::vector<std::string> option_names(const CLI::App& verb) {
  std::vector<std::string> out;
  for (const CLI::Option* o : verb.get_options()) {
    for (const std::string& name : o->get_lnames())
      out.push_back(name);
  }
  return out;
}

bool is_given(const std::vector<std::string>& words, const CLI::Option& option) {
  return std::ranges::any_of(words, [&](const std::string& w) {
    const std::string name = w.substr(0, w.find('='));
    return std::ranges::any_of(option.get_lnames(),
                               [&](const std::string& n) { return name == "--" + n; }) ||
           std::ranges::any_of(option.get_snames(), [&](const std::string& n) {
             return w.starts_with("-" + n) && !w.starts_with("--");
           });
  });
}

std::vector<CLI::ConfigItem> read_config(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    throw Error(Exit::input, concat("there is no configuration file '", path, "'"));
  try {
    return CLI::ConfigTOML().from_file(path);
  } catch (const CLI::Error& e) {
    throw Error(Exit::usage, concat(path, ": ", e.what()));
  }
}

// The option that a line of a configuration file sets.
const CLI::Option& option_of(const CLI::ConfigItem& item, const std::string& path,
                             const CLI::App& verb) {
  const bool own_section = item.parents.size() == 1 && item.parents[0] == verb.get_name();
  if (!item.parents.empty() && !own_section) {
    throw Error(Exit::usage, concat(path, ": section [", item.parents[0], "] is not for the verb '",
                                    verb.get_name(), "'"));
  }
  const CLI::Option* option = verb.get_option_no_throw("--" + item.name);
  if (!option || item.name == "config" || item.name == "help") {
    const std::string near = nearest(item.name, option_names(verb));
    throw Error(Exit::usage, concat(path, ": unknown key '", item.name, "'"))
        .hint(near.empty() ? concat("moe ", verb.get_name(), " --help lists the options")
                           : concat("'", near, "'"));
  }
  return *option;
}

// The words that such a line stands for.
std::vector<std::string> words_of(const CLI::ConfigItem& item, const std::string& path,
                                  const CLI::Option& option) {
  if (option.get_expected_max() == 0) {  // a flag
    if (item.inputs.size() != 1 || (item.inputs[0] != "true" && item.inputs[0] != "false"))
      throw Error(Exit::usage, concat(path, ": ", item.name, " is true or false"));
    if (item.inputs[0] == "false")
      return {};
    return {"--" + item.name};
  }
  std::vector<std::string> out;
  for (const std::string& value : item.inputs)
    out.push_back("--" + item.name + "=" + value);
  return out;
}

// Adds the options of one file to the words, where they are not given otherwise.
void add_config(std::vector<std::string>& words, const std::string& path, const CLI::App& verb) {
  std::vector<std::string> more;
  for (const CLI::ConfigItem& item : read_config(path)) {
    if (item.name == "++" || item.name == "--")
      continue;  // marks of sections
    const CLI::Option& option = option_of(item, path, verb);
    const std::string& variable = option.get_envname();
    if (is_given(words, option) || (!variable.empty() && std::getenv(variable.c_str())))
      continue;
    const std::vector<std::string> own = words_of(item, path, option);
    more.insert(more.end(), own.begin(), own.end());
  }
  words.insert(words.end(), more.begin(), more.end());
}

// --config of moe import is a model's configuration, not a file of options.
bool takes_option_file(const CLI::App& verb) {
  const CLI::Option* option = verb.get_option_no_throw("--config");
  return !option || option->get_type_name() == "FILE";
}

}  // namespace

namespace {

// CLI11 reads the variables of every verb, whether it runs or not, and checks what they hold. Only
// those of options count that are not given on the command line, of the verb that runs.
void forget_variables(CLI::App& app, const std::vector<std::string>& words, bool runs) {
  for (CLI::Option* o : app.get_options()) {
    if (!runs || is_given(words, *o))
      o->envname("");
  }
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) {
    const bool named = std::ranges::find(words, sub->get_name()) != words.end();
    forget_variables(*sub, words, runs && named);
  }
}

// Remembers what was typed, and says where a shell seems to have taken a spec apart.
void look_at_words(const std::vector<std::string>& words) {
  typed() = "moe";
  for (const std::string& w : words)
    typed() += " " + shell_quoted(w);
  for (const std::string& sentence : brace_list_notes(words))
    note(sentence);
}

}  // namespace

std::vector<std::string> arguments(int argc, char** argv, CLI::App& app) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const std::string name = std::filesystem::path(argv[0]).filename().string();
  if (name.starts_with("moe-") && commands().find(name.substr(4)))
    words.insert(words.begin(), name.substr(4));
  look_at_words(words);
  forget_variables(app, words, true);
  // "moe help train" is the page of that verb; other words are looked for
  if (words == std::vector<std::string>{"help"})
    words = {"--help"};
  if (words.size() == 2 && words[0] == "help" && commands().find(words[1]))
    words = {words[1], "--help"};
  if (words.empty())
    return words;
  if (!words[0].starts_with("-") && !commands().find(words[0]))
    no_such("command", words[0], commands().names());
  CLI::App* verb = words[0].starts_with("-") ? nullptr : app.get_subcommand(words[0]);
  if (verb && !takes_option_file(*verb))
    return words;
  for (std::size_t i = 1; verb && i < words.size(); ++i) {
    if (words[i] == "--config" && i + 1 < words.size()) {
      add_config(words, std::string(words[i + 1]), *verb);
      return words;
    }
    if (words[i].starts_with("--config=")) {
      add_config(words, words[i].substr(9), *verb);
      return words;
    }
  }
  return words;
}

namespace {

std::vector<std::string> subject_names(const CLI::App& verb) {
  std::vector<std::string> out;
  for (const CLI::App* s : verb.get_subcommands([](const CLI::App*) { return true; }))
    out.push_back(s->get_name());
  return out;
}

// A verb with subjects of its own was given none, or one that is not there: "moe bench opps".
std::optional<Error> subject_error(const CLI::App& verb, const std::vector<std::string>& rest,
                                   const std::string& help) {
  const std::vector<std::string> subjects = subject_names(verb);
  if (subjects.empty())
    return std::nullopt;
  if (rest.empty()) {
    return Error(Exit::usage, concat("moe ", verb.get_name(), " of what? ", join(subjects, ", ")))
        .hint(help);
  }
  if (!rest.front().starts_with("-"))
    no_such(concat("subject of moe ", verb.get_name()), rest.front(), subjects);
  return std::nullopt;
}

// A word that is neither an option nor wanted.
Error extra_word_error(const CLI::App& verb, const std::string& given, const std::string& help) {
  const std::string word = given.substr(0, given.find('='));
  // "-" and "--" name nothing
  const bool is_name = word.starts_with("-") && word.find_first_not_of('-') != word.npos;
  if (!is_name) {
    const std::string hint = brace_list_hint(given);
    return Error(Exit::usage, concat("unexpected argument '", given, "'"))
        .hint(hint.empty() ? help : hint);
  }
  const std::string near = nearest(word.substr(word.find_first_not_of('-')), option_names(verb));
  return Error(Exit::usage, concat("unknown option '", word, "'"))
      .hint(near.empty() ? help : concat("--", near));
}

}  // namespace

namespace {

// "--threads: 'abc' is ..." with the variable in the option's place where the value came from it.
std::string naming_variables(std::string sentence, const CLI::App& verb) {
  for (const CLI::Option* o : verb.get_options()) {
    const std::string prefix = o->get_name() + ":";
    if (!o->get_envname().empty() && sentence.starts_with(prefix))
      sentence.replace(0, prefix.size() - 1, concat("the environment variable ", o->get_envname()));
  }
  return sentence;
}

}  // namespace

Error usage_error(const CLI::ParseError& e, const CLI::App& app) {
  const CLI::App* verb = &app;
  std::string help = "moe ";
  while (!verb->get_subcommands().empty()) {
    verb = verb->get_subcommands().front();
    help += verb->get_name() + " ";
  }
  help += "--help";
  const auto rest = verb->remaining(true);
  if (verb != &app) {
    if (const auto error = subject_error(*verb, rest, help))
      return *error;
  }
  if (dynamic_cast<const CLI::ExtrasError*>(&e) && !rest.empty())
    return extra_word_error(*verb, rest.front(), help);
  const auto parsed = app.get_subcommands();
  const auto* entry = parsed.empty() ? nullptr : commands().find(parsed.front()->get_name());
  return Error(Exit::usage, naming_variables(in_our_words(e.what()), *verb))
      .hint(entry ? concat(help, ", or for example: moe ", split(entry->examples, '|')[0]) : help);
}

std::string options_json(const CommandLine& verb) {
  nlohmann::json out;
  for (const CLI::Option* o : verb.app().get_options()) {
    const std::string name = o->get_lnames().empty() ? o->get_name() : o->get_lnames().front();
    if (name == "help" || name == "config" || name == "force")
      continue;
    const std::vector<std::string> given = o->count() ? o->results() : std::vector<std::string>{};
    if (given.size() > 1 || (o->get_expected_max() > 1 && !given.empty()))
      out[name] = escaped_all(given);
    else if (!given.empty())
      out[name] = escaped(given[0]);
    else if (!o->get_default_str().empty())
      out[name] = o->get_default_str();
  }
  return out.dump();
}

const std::string& command_line() {
  return typed();
}

}  // namespace moe
