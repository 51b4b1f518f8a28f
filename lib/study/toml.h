// TOML by a declared schema: every key is asked for by its kind, and a key that nobody asked for is
// refused with its line and the nearest known name.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

class TomlTable {
 public:
  struct State;  // the toml++ table, whose headers cost seconds of compile time
  explicit TomlTable(std::shared_ptr<State>);

  bool has(const std::string& key) const;
  bool is_list(const std::string& key) const;
  std::vector<std::string> keys() const;  // in the order of the file

  // Throw Error(input) with file and line where a key is missing or holds another kind of value.
  std::string text(const std::string& key);
  std::string text(const std::string& key, const std::string& fallback);
  std::int64_t whole(const std::string& key, std::int64_t fallback);
  double number(const std::string& key, double fallback);
  std::vector<std::string> texts(const std::string& key);           // none where it is missing
  std::vector<std::int64_t> whole_numbers(const std::string& key);  // a number, or a list of them
  // Text, a number or a truth value as a command line has it: 0.01, 3, true; and a list of those.
  std::string value_text(const std::string& key);
  std::vector<std::string> value_texts(const std::string& key);
  TomlTable table(const std::string& key);
  std::vector<TomlTable> tables(const std::string& key);  // [[key]]; none where it is missing

  void done() const;  // refuses what nobody asked for
  [[noreturn]] void refuse(const std::string& key, const std::string& sentence) const;

 private:
  std::shared_ptr<State> state_;
};

// `name` begins the sentences of errors. Throws Error(input) for what is no TOML, with its line.
TomlTable parse_toml(std::string_view text, const std::string& name);

}  // namespace moe
