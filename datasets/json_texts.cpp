#include "datasets/json_texts.h"

#include <map>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/lines.h"

namespace moe {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostDomains = 4096;

// The value that a key names; nothing where there is none.
const Json* value_at(const Json& line, std::string_view key) {
  if (!line.is_object())
    return nullptr;
  if (const auto found = line.find(key); found != line.end())
    return &*found;
  const std::size_t dot = key.find('.');
  if (dot == key.npos)
    return nullptr;
  const auto outer = line.find(key.substr(0, dot));
  return outer == line.end() ? nullptr : value_at(*outer, key.substr(dot + 1));
}

class TextLines {
 public:
  TextLines(const std::filesystem::path& path, const std::string& field)
      : lines_(path, concat("{", Json(field).dump(), ": \"...\"} on every line; field=KEY names ",
                            "the key that holds the text")),
        field_(field) {}
  bool next() {
    return lines_.next(line_);
  }
  std::string text() const {
    const Json* value = value_at(line_, field_);
    if (!value || !value->is_string())
      lines_.refuse(concat("has no text at ", in_quotes(field_)));
    return value->get<std::string>();
  }
  std::string domain(const std::string& key) const {
    const Json* value = value_at(line_, key);
    std::string name;
    if (value && value->is_string())
      name = value->get<std::string>();
    else if (value && value->is_number_integer())
      name = value->dump();
    if (name.empty()) {
      lines_.refuse(concat("names no domain at ", in_quotes(key),
                           ": with field= the option domain= is the key of a line's domain"));
    }
    return name;
  }
  [[noreturn]] void refuse(const std::string& why) const {
    lines_.refuse(why);
  }

 private:
  JsonLineReader lines_;
  const std::string& field_;
  Json line_;
};

// Adds a text, or as much of it as the limit leaves; false where the domain is full.
bool add_text(DomainCollector& out, std::string text) {
  const Index room = out.room();
  if (room <= 0) {
    out.domain.limited = true;
    return false;
  }
  const Index counted = std::min(room, Index(text.size()));
  const bool whole = counted == Index(text.size());
  text.resize(std::size_t(counted));
  if (!whole)
    drop_cut_character(text);
  out.domain.limited |= !whole;
  out.add(std::move(text), whole, counted);
  return true;
}

}  // namespace

void add_json_texts(DomainCollector& out, const std::filesystem::path& path,
                    const std::string& field) {
  out.domain.counted = "text";
  TextLines lines(path, field);
  while (lines.next()) {
    if (!add_text(out, lines.text()))
      return;
  }
}

std::vector<DomainText> read_json_domains(const Paths& files, const Reading& reading,
                                          const std::string& domain) {
  std::vector<DomainCollector> found;
  std::map<std::string, std::size_t> place;
  for (const auto& path : files) {
    TextLines lines(path, reading.field);
    while (lines.next()) {
      const auto [at, is_new] = place.emplace(lines.domain(domain), found.size());
      if (is_new && found.size() == kMostDomains) {
        lines.refuse(
            concat("names one more domain than the ", kMostDomains, " that a dataset may have"));
      }
      if (is_new)
        found.emplace_back(at->first, reading.limit).domain.counted = "text";
      add_text(found[at->second], lines.text());
    }
  }
  std::vector<DomainText> out;
  for (DomainCollector& collector : found)
    out.push_back(std::move(collector.domain));
  return out;
}

}  // namespace moe
