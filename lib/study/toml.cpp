#include "lib/study/toml.h"

#include <algorithm>
#include <set>

#include "lib/core/error.h"
#include "lib/core/text.h"

#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace moe {

struct TomlTable::State {
  std::shared_ptr<toml::table> document;  // keeps the nodes alive
  const toml::table* table = nullptr;
  std::string file, path;  // path: "[base]"; empty = the top
  std::set<std::string> asked;
};

namespace {

std::string line_of(const std::string& file, const toml::source_region& at) {
  return concat("'", file, "' line ", at.begin.line, ": ");
}

std::string shown(const std::string& path, const std::string& key) {
  return path.empty() ? concat("'", key, "'") : concat("'", key, "' in ", path);
}

// A value as a command line has it; empty where it is a table, a list or a date.
std::string text_of(const toml::node& n) {
  if (const auto* s = n.as_string())
    return s->get();
  if (const auto* i = n.as_integer())
    return concat(i->get());
  if (const auto* d = n.as_floating_point())
    return number_text(d->get());
  if (const auto* b = n.as_boolean())
    return b->get() ? "true" : "false";
  return "";
}

bool is_plain(const toml::node& n) {
  return n.is_string() || n.is_integer() || n.is_floating_point() || n.is_boolean();
}

const toml::node* node_of(TomlTable::State& s, const std::string& key) {
  s.asked.insert(key);
  return s.table->get(key);
}

}  // namespace

TomlTable::TomlTable(std::shared_ptr<State> state) : state_(std::move(state)) {}

void TomlTable::refuse(const std::string& key, const std::string& sentence) const {
  const toml::node* n = state_->table->get(key);
  throw Error(Exit::input,
              concat(line_of(state_->file, n ? n->source() : state_->table->source()), sentence))
      .hint("docs/study.md lists the keys of a study; moe study NAME --print shows one");
}

bool TomlTable::has(const std::string& key) const {
  return node_of(*state_, key) != nullptr;
}

bool TomlTable::is_list(const std::string& key) const {
  const toml::node* n = state_->table->get(key);
  return n && n->is_array();
}

std::vector<std::string> TomlTable::keys() const {
  std::vector<std::pair<toml::source_position, std::string>> found;
  for (const auto& [key, value] : *state_->table)
    found.emplace_back(key.source().begin, std::string(key.str()));
  std::ranges::sort(found, [](const auto& a, const auto& b) {
    return a.first.line != b.first.line ? a.first.line < b.first.line
                                        : a.first.column < b.first.column;
  });
  std::vector<std::string> out;
  for (auto& [at, key] : found)
    out.push_back(std::move(key));
  return out;
}

std::string TomlTable::text(const std::string& key) {
  if (!has(key))
    refuse(key, concat(shown(state_->path, key), " is missing"));
  return text(key, "");
}

std::string TomlTable::text(const std::string& key, const std::string& fallback) {
  const toml::node* n = node_of(*state_, key);
  if (!n)
    return fallback;
  if (!n->is_string())
    refuse(key, concat(shown(state_->path, key), " is text in quotes"));
  return n->as_string()->get();
}

std::int64_t TomlTable::whole(const std::string& key, std::int64_t fallback) {
  const toml::node* n = node_of(*state_, key);
  if (!n)
    return fallback;
  if (!n->is_integer())
    refuse(key, concat(shown(state_->path, key), " is a whole number"));
  return n->as_integer()->get();
}

double TomlTable::number(const std::string& key, double fallback) {
  const toml::node* n = node_of(*state_, key);
  if (!n)
    return fallback;
  const auto value = n->value<double>();
  if (!n->is_number() || !value || !std::isfinite(*value))
    refuse(key, concat(shown(state_->path, key), " is a number"));
  return *value;
}

std::vector<std::string> TomlTable::texts(const std::string& key) {
  std::vector<std::string> out;
  const toml::node* n = node_of(*state_, key);
  if (!n)
    return out;
  if (!n->is_array())
    refuse(key, concat(shown(state_->path, key), " is a list of texts: [\"...\"]"));
  for (const toml::node& entry : *n->as_array()) {
    if (!entry.is_string())
      refuse(key, concat(shown(state_->path, key), " holds something that is no text in quotes"));
    out.push_back(entry.as_string()->get());
  }
  return out;
}

std::vector<std::int64_t> TomlTable::whole_numbers(const std::string& key) {
  const toml::node* n = node_of(*state_, key);
  if (!n)
    return {};
  if (n->is_integer())
    return {n->as_integer()->get()};
  if (!n->is_array())
    refuse(key, concat(shown(state_->path, key), " is a whole number or a list of them"));
  std::vector<std::int64_t> out;
  for (const toml::node& entry : *n->as_array()) {
    if (!entry.is_integer())
      refuse(key, concat(shown(state_->path, key), " holds something that is no whole number"));
    out.push_back(entry.as_integer()->get());
  }
  return out;
}

std::string TomlTable::value_text(const std::string& key) {
  const toml::node* n = node_of(*state_, key);
  if (!n || !is_plain(*n))
    refuse(key, concat(shown(state_->path, key), " is text, a number, true or false"));
  return text_of(*n);
}

std::vector<std::string> TomlTable::value_texts(const std::string& key) {
  const toml::node* n = node_of(*state_, key);
  if (!n || !n->is_array())
    refuse(key, concat(shown(state_->path, key), " is a list: [\"softmax\", \"sigmoid\"]"));
  std::vector<std::string> out;
  for (const toml::node& entry : *n->as_array()) {
    if (!is_plain(entry))
      refuse(key, concat(shown(state_->path, key), " holds something that is no plain value"));
    out.push_back(text_of(entry));
  }
  return out;
}

TomlTable TomlTable::table(const std::string& key) {
  const toml::node* n = node_of(*state_, key);
  if (!n || !n->is_table())
    refuse(key, concat(shown(state_->path, key), " is a table: [", key, "]"));
  return TomlTable(std::make_shared<State>(
      State{state_->document, n->as_table(), state_->file, concat("[", key, "]"), {}}));
}

std::vector<TomlTable> TomlTable::tables(const std::string& key) {
  std::vector<TomlTable> out;
  const toml::node* n = node_of(*state_, key);
  if (!n)
    return out;
  if (!n->is_array() || !n->as_array()->is_homogeneous<toml::table>())
    refuse(key, concat(shown(state_->path, key), " are tables: [[", key, "]]"));
  for (const toml::node& entry : *n->as_array()) {
    out.emplace_back(std::make_shared<State>(
        State{state_->document, entry.as_table(), state_->file, concat("[[", key, "]]"), {}}));
  }
  return out;
}

void TomlTable::done() const {
  for (const std::string& key : keys()) {
    if (state_->asked.contains(key))
      continue;
    const std::string near =
        nearest(key, std::vector<std::string>(state_->asked.begin(), state_->asked.end()));
    refuse(key, concat("nothing is called ", shown(state_->path, key),
                       near.empty() ? "" : concat("; '", near, "' is near")));
  }
}

TomlTable parse_toml(std::string_view text, const std::string& name) {
  try {
    auto document = std::make_shared<toml::table>(toml::parse(text, name));
    const toml::table* root = document.get();
    return TomlTable(
        std::make_shared<TomlTable::State>(TomlTable::State{document, root, name, "", {}}));
  } catch (const toml::parse_error& e) {
    throw Error(Exit::input,
                concat(line_of(name, e.source()), "no TOML: ", std::string(e.description())))
        .hint("docs/study.md shows a study; moe study NAME --print one that works");
  }
}

}  // namespace moe
