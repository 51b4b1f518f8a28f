#include "apps/search.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "analysis/metric/definitions.h"
#include "apps/command.h"
#include "apps/glossary.h"
#include "apps/kinds.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// Lower case, with "-", "_" and "--" as blanks, and a blank at both ends.
std::string plain(std::string_view text) {
  std::string out = " ";
  for (const char c : text) {
    const bool gap = c == '-' || c == '_' || c == ' ' || c == ',' || c == '.' || c == '(' ||
                     c == ')' || c == ':' || c == '/';
    if (!gap)
      out += c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
    else if (out.back() != ' ')
      out += ' ';
  }
  return out.back() == ' ' ? out : out + ' ';
}

std::string trimmed(std::string text) {
  text.erase(0, text.find_first_not_of(' '));
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

// "gates" finds "gate", "experts" finds "expert".
std::string stem(const std::string& word) {
  const bool plural = word.size() > 4 && word.ends_with('s') && !word.ends_with("ss");
  return plural ? word.substr(0, word.size() - 1) : word;
}

bool is_ascii(const std::string& text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// How close a text comes to a word: 3 it is one of its words, 2 one of them begins with it, 1 it
// holds it, 0 not. Chinese has no blanks between words.
int closeness(const std::string& text, const std::string& word) {
  const std::string core = trimmed(plain(stem(word)));
  if (core.empty())
    return 0;
  if (text.find(" " + core + " ") != text.npos || text.find(" " + core + "s ") != text.npos)
    return 3;
  if (text.find(" " + core) != text.npos)
    return 2;
  const bool long_enough = core.size() > 3 || !is_ascii(core);
  return long_enough && text.find(core) != text.npos ? 1 : 0;
}

// Whether a name, "top-k, k (前k个)", is or has in its list what was asked for, in plain letters.
bool is_one_of(const std::string& name, const std::string& asked) {
  const std::string list = name.substr(0, name.find(" ("));
  return std::ranges::any_of(split(list, ','),
                             [&](const auto& part) { return plain(part) == asked; });
}

// Lower is closer; nothing where a word is not there at all.
std::optional<int> distance(const Findable& e, const std::vector<std::string>& words) {
  const std::string name = plain(e.name);
  const std::string all = name + plain(e.about) + plain(e.kind);
  int out = 0;
  std::string query;
  for (const std::string& word : words) {
    const int in_name = closeness(name, word);
    const int anywhere = closeness(all, word);
    if (anywhere == 0)
      return std::nullopt;
    out += in_name > 0 ? 4 - in_name : 12 - anywhere;
    query += (query.empty() ? "" : " ") + word;
  }
  if (e.kind == "figure" && e.name == query)
    return -1;  // an id as it is written
  const std::string whole = plain(query);
  if (is_one_of(e.name, whole))
    return 0;
  return out + (name.find(whole) != name.npos ? 0 : 1);
}

void add_verbs(const CLI::App& program, std::vector<Findable>& out) {
  for (const CLI::App* verb : program.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string call = "moe " + verb->get_name();
    const auto* command = commands().find(verb->get_name());
    out.push_back({"verb", verb->get_name(), verb->get_description(),
                   command ? concat("moe ", split(command->examples, '|')[0]) : call + " --help"});
    for (const CLI::Option* o : verb->get_options()) {
      if (o->get_lnames().empty() || o->get_lnames()[0] == "help" || o->get_group().empty())
        continue;
      out.push_back({concat("option of ", call), "--" + o->get_lnames()[0], o->get_description(),
                     call + " --help"});
    }
  }
}

std::string singular(std::string_view kind) {
  if (kind.ends_with("ies"))
    return std::string(kind.substr(0, kind.size() - 3)) + "y";
  return std::string(kind.substr(0, kind.size() - 1));
}

void add_kinds(std::vector<Findable>& out) {
  for (const Kind& k : kinds()) {
    if (k.name == "commands")
      continue;
    for (const auto& [name, about, examples] : k.rows)
      out.push_back({singular(k.name), name, about, concat("moe list ", k.name)});
  }
}

void add_figures(std::vector<Findable>& out) {
  for (const Definition& d : definitions()) {
    out.push_back({"figure", std::string(d.id), std::string(d.formula),
                   d.metric == of_two_traces ? "moe report a.moetrace.h5 --against b.moetrace.h5"
                   : d.metric == of_missing_experts
                       ? "moe eval RUN --data SPEC --without-expert each"
                       : concat("moe report a.moetrace.h5 --metric ", d.id)});
  }
}

}  // namespace

std::vector<Findable> entries(const CLI::App& program) {
  std::vector<Findable> out;
  for (const Term& t : glossary()) {
    out.push_back({"word", concat(t.words, " (", t.chinese, ")"), std::string(t.meaning),
                   std::string(t.command)});
  }
  add_verbs(program, out);
  add_kinds(out);
  add_figures(out);
  return out;
}

std::vector<Findable> found(const std::vector<Findable>& all,
                            const std::vector<std::string>& words) {
  std::vector<std::pair<int, const Findable*>> ranked;
  for (const Findable& e : all) {
    if (const auto far = distance(e, words))
      ranked.emplace_back(*far, &e);
  }
  std::ranges::stable_sort(ranked, {}, &std::pair<int, const Findable*>::first);
  std::vector<Findable> out;
  for (const auto& [far, e] : ranked)
    out.push_back(*e);
  return out;
}

std::string nearest_name(const std::vector<Findable>& all, const std::string& word) {
  std::vector<std::string> names;
  for (const Findable& e : all) {
    for (const std::string& part : split(trimmed(plain(e.name)), ' '))
      names.push_back(part);
  }
  return nearest(trimmed(plain(word)), names);
}

}  // namespace moe
