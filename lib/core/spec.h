// How a user names a thing and its options, everywhere: "softmax:k=2,norm=1". A nested spec or an
// odd value stands in braces: "text:path={/a,b},tokenizer={bpe:vocab=4096}". The maker asks for
// each option with its default; done() refuses what nobody asked for; resolved() is the whole
// choice with its defaults, for checkpoints, traces and reports.
#pragma once
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe {

class Spec {
 public:
  explicit Spec(std::string_view text);  // throws Error(usage) where it does not parse

  const std::string& name() const {
    return name_;
  }
  bool has(std::string_view key) const;
  std::string get(std::string_view key, const char* fallback);
  std::string get(std::string_view key, const std::string& fallback);
  int get(std::string_view key, int fallback, int least = std::numeric_limits<int>::min());
  // refuses NaN
  double get(std::string_view key, double fallback,
             double least = -std::numeric_limits<double>::infinity());
  // 0|1|true|false
  bool get(std::string_view key, bool fallback);
  // default: the first
  std::string choice(std::string_view key, const std::vector<std::string>& allowed);
  void set(std::string_view key, std::string_view value);  // gives an option, or replaces it
  // Another name for the thing, or for one of its options where that was given: whether it was.
  // Throws Error(usage) where the option was given under both names.
  void rename(std::string_view name);
  bool rename_option(std::string_view former, std::string_view now);
  // throws Error(usage), naming the nearest option
  void done() const;
  // "softmax:k=2": what was given or set, braces where needed
  std::string given_text() const;
  // "softmax:k=2,norm=1": every option asked for, in that order
  std::string resolved() const;

 private:
  const std::string* given(std::string_view key) const;
  void record(std::string_view key, const std::string& value);

  std::string name_;
  std::vector<std::pair<std::string, std::string>> given_, asked_;
};

}  // namespace moe
