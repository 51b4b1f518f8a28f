// JSON read in one pass without a tree: a value is taken where it stands, or skipped. Lists of
// numbers of any depth go straight into a vector, so that lines of hundreds of megabytes cost a
// scan and nothing else. The text has to outlive the cursor.
#pragma once
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/view.h"

namespace moe {

class JsonCursor {
 public:
  static constexpr int deepest = 64;

  // `where` begins every refusal: "'a.jsonl' line 3"
  JsonCursor(std::string_view text, std::string where)
      : at_(text.data()), first_(text.data()), end_(text.data() + text.size()), where_(where) {}

  // First character of the next value ('{', '[', '"', a digit or '-', 't', 'f', 'n'); 0 at the end.
  char next();
  // Calls body(key) for each member; body takes the value.
  template <std::invocable<std::string> Body>
  void members(Body body) {
    for (bool more = enter('{', '}'); more; more = another('}')) {
      std::string key = text();
      expect(':');
      body(std::move(key));
    }
    leave();
  }
  // Calls body() for each element; body takes it.
  template <class Body>
  void elements(Body body) {
    for (bool more = enter('[', ']'); more; more = another(']'))
      body();
    leave();
  }
  std::string text();
  // The same as a view: into the document, or into `scratch` where it has escapes.
  std::string_view text(std::string& scratch);
  std::int64_t whole();  // refuses fractions, exponents and what does not fit 63 bits
  double real();         // "NaN" and "Infinity" are refused as they are no JSON
  bool null();           // takes a null where there is one
  void skip();
  // The next value as text, checked; to be read by another cursor.
  std::string_view raw();
  void end();  // refuses anything but blanks

  // Lists of lists ... of whole numbers, or of numbers: `axes` names each axis from the outside in.
  // Appends to `out` and returns the shape (an axis below an empty one is 0). Refuses ragged lists
  // by what they are called: "ids[4] has 3 topk, those before have 2".
  std::vector<Index> wholes(const char* what, const std::vector<const char*>& axes,
                            std::vector<std::int32_t>& out);
  std::vector<Index> reals(const char* what, const std::vector<const char*>& axes,
                           std::vector<float>& out);

  // Error(input): "WHERE WHY"
  [[noreturn]] void refuse(const std::string& why, const std::string& hint = {}) const;
  const std::string& where() const {
    return where_;
  }

 private:
  struct Lists;
  bool enter(char open, char close);
  bool another(char close);
  void leave() {
    --depth_;
  }
  void expect(char c);
  [[noreturn]] void no_json(const char* wanted) const;
  void word(const char* rest);
  void number();
  void skip_text();
  template <class Number>
  void list(Lists&, std::size_t axis, std::vector<Number>& out);
  Index short_numbers(std::vector<std::int32_t>& out);
  void check_length(Lists&, std::size_t axis, Index n) const;

  const char *at_, *first_, *end_;
  std::string where_;
  int depth_ = 0;
};

}  // namespace moe
