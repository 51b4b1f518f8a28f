#include "apps/completion_words.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <set>

#include "analysis/metric/definitions.h"
#include "apps/command.h"
#include "apps/kinds.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using Candidates = std::vector<Candidate>;

// The registry whose names an option takes, or an argument of a verb.
std::string kind_of_option(const std::string& verb, const std::string& option) {
  static const std::map<std::string, std::string> of = {
      {"--router", "routers"},         {"--balance", "balancers"},
      {"--capacity", "capacities"},    {"--data", "datasets"},
      {"--tokenizer", "tokenizers"},   {"--device", "devices"},
      {"--model", "models"},           {"--metric", "metrics"},
      {"--format", "formats"},         {"--from", "imports"},
      {"--convention", "conventions"}, {"--policy", "policies"},
      {"--planted-labels", "datasets"}};
  if (option == "--to")
    return verb == "place" ? "placements" : "exports";
  const auto found = of.find(option);
  return found == of.end() ? "" : found->second;
}

std::string kind_of_argument(const std::string& verb) {
  return verb == "synth"  ? "patterns"
         : verb == "plan" ? "models"
         : verb == "data" ? "datasets"
                          : "";
}

Kind kind_named(const std::string& name) {
  for (Kind& k : kinds()) {
    if (k.name == name)
      return std::move(k);
  }
  return {};
}

// "softmax:k=2,init={a:b=1}" -> k, init
void add_keys(const std::string& spec, std::set<std::string>& out) {
  int depth = 0;
  std::string key;
  for (const char c : spec) {
    depth += (c == '{') - (c == '}');
    if (depth > 0 || c == '}')
      continue;
    if (c == '=' && !key.empty())
      out.insert(key);
    const bool begins = c == ':' || c == ',';
    key = begins || c == '=' ? "" : key + c;
  }
}

// Keys that the examples of an entry show; of a model, all fields.
std::set<std::string> keys_of(const std::string& kind, const std::string& entry) {
  std::set<std::string> out;
  if (kind == "models") {
    for (const auto& row : kind_named("fields").rows)
      out.insert(row[0]);
    return out;
  }
  for (const auto& [name, about, examples] : kind_named(kind).rows) {
    for (std::string example : split(name == entry ? examples : "", ' ')) {
      std::erase(example, '\'');
      add_keys(example, out);
    }
  }
  return out;
}

// "softmax:k=2,no" -> "softmax:k=2,norm="
Candidates keys_for(const std::string& kind, const std::string& word) {
  const std::string entry = word.substr(0, word.find(':'));
  const auto last = word.find_last_of(":,");
  const std::string before = word.substr(0, last + 1);
  Candidates out;
  for (const std::string& key : keys_of(kind, entry))
    out.push_back({concat(before, key, "="), ""});
  return out;
}

Candidates names_for(const std::string& kind, const std::string& word) {
  if (word.find(':') != word.npos)
    return keys_for(kind, word);
  Candidates out;
  for (const auto& [name, about, examples] : kind_named(kind).rows) {
    if (name == "FILE") {
      out.push_back({any_file, ""});
      continue;
    }
    out.push_back({name, about});
    if (!keys_of(kind, name).empty())
      out.push_back({name + ":", about});
  }
  if (kind == "metrics") {
    for (const Definition& d : definitions())
      out.push_back({std::string(d.id), std::string(d.formula)});
  }
  return out;
}

// Values of an option: of a registry, those that its type lists, or files.
Candidates values_for(const std::string& verb, const CLI::Option& o, const std::string& word) {
  const std::string name = o.get_lnames().empty() ? "" : "--" + o.get_lnames()[0];
  if (const std::string kind = kind_of_option(verb, name); !kind.empty())
    return names_for(kind, word);
  const std::string type = o.get_type_name();
  if (type.find('|') != type.npos) {
    Candidates out;
    for (const std::string& value : split(type, '|'))
      out.push_back({value, ""});
    return out;
  }
  const bool is_path = type == "FILE" || type == "FOLDER" || type == "TRACE" || type == "PATH";
  return is_path ? Candidates{{any_file, ""}} : Candidates{};
}

const CLI::Option* option_named(const CLI::App& verb, const std::string& word) {
  if (!word.starts_with("-"))
    return nullptr;
  for (const CLI::Option* o : verb.get_options()) {
    for (const std::string& l : o->get_lnames()) {
      if (word == "--" + l)
        return o;
    }
    for (const std::string& s : o->get_snames()) {
      if (word == "-" + s)
        return o;
    }
  }
  return nullptr;
}

Candidates options_of(const CLI::App& verb) {
  Candidates out;
  for (const CLI::Option* o : verb.get_options()) {
    if (!o->get_lnames().empty() && !o->get_group().empty())
      out.push_back({"--" + o->get_lnames()[0], o->get_description()});
  }
  return out;
}

Candidates subjects_of(const CLI::App& app) {
  Candidates out;
  for (const CLI::App* s : app.get_subcommands([](const CLI::App*) { return true; }))
    out.push_back({s->get_name(), s->get_description()});
  return out;
}

const CLI::App* subject_named(const CLI::App& app, const std::string& name) {
  for (const CLI::App* s : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (s->get_name() == name)
      return s;
  }
  return nullptr;
}

Candidates arguments_of(const std::string& verb, const std::string& word) {
  if (verb == "list") {
    Candidates out;
    for (const Kind& k : kinds())
      out.push_back({std::string(k.name), std::string(k.title)});
    return out;
  }
  if (verb == "help")
    return {};
  if (verb == "completions")
    return {{"bash", ""}, {"zsh", ""}, {"fish", ""}};
  const std::string kind = kind_of_argument(verb);
  Candidates out = kind.empty() ? Candidates{} : names_for(kind, word);
  if (verb != "synth")
    out.push_back({any_file, ""});
  return out;
}

// Everything that could stand there, whatever the word begins with.
Candidates possible(const CLI::App& program, const std::vector<std::string>& words) {
  const std::string& word = words.back();
  if (words.size() == 1)
    return word.starts_with("-") ? options_of(program) : subjects_of(program);
  const CLI::App* verb = subject_named(program, words[0]);
  if (!verb)
    return {};
  const std::string name = words[0];
  if (const Candidates subjects = subjects_of(*verb); !subjects.empty()) {
    if (words.size() == 2 && !word.starts_with("-"))
      return subjects;
    if (const CLI::App* subject = subject_named(*verb, words[1]))
      verb = subject;
  }
  const CLI::Option* before = option_named(*verb, words[words.size() - 2]);
  if (before && before->get_expected_max() > 0)
    return values_for(name, *before, word);
  return word.starts_with("-") ? options_of(*verb) : arguments_of(name, word);
}

}  // namespace

std::vector<Candidate> candidates(const CLI::App& program, const std::vector<std::string>& words) {
  if (words.empty())
    return {};
  Candidates out = possible(program, words);
  std::erase_if(out, [&](const Candidate& c) {
    return c.word != any_file && !c.word.starts_with(words.back());
  });
  return out;
}

}  // namespace moe
