// The general engine: PCRE2, compiled to machine code where it can, with a limit of steps so that
// no pattern of a file makes a text take for ever.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "lib/tokenizer/pcre_pattern.h"

#include <pcre2.h>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

constexpr std::uint32_t kSteps = 50'000'000;
constexpr std::size_t kLongestExpression = 4096;

struct Free {
  void operator()(pcre2_code* p) const {
    pcre2_code_free(p);
  }
  void operator()(pcre2_match_data* p) const {
    pcre2_match_data_free(p);
  }
  void operator()(pcre2_match_context* p) const {
    pcre2_match_context_free(p);
  }
};
template <class T>
using Held = std::unique_ptr<T, Free>;

std::string message_of(int code) {
  char text[200] = "";
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof(text));
  return text;
}

Held<pcre2_code> compiled(std::string_view onig, std::string_view source) {
  const std::string expression = pcre_expression(onig, source);
  int code = 0;
  PCRE2_SIZE offset = 0;
  Held<pcre2_code> out(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()),
                                     expression.size(), PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code,
                                     &offset, nullptr));
  if (!out) {
    throw Error(Exit::input, concat(in_quotes(source), ": the pattern ", in_quotes(onig),
                                    " is not understood: ", message_of(code)))
        .hint("patterns are read as Oniguruma reads them, without calls and conditions");
  }
  pcre2_jit_compile(out.get(), PCRE2_JIT_COMPLETE);  // where it cannot, the interpreter runs
  return out;
}

class PcrePattern final : public SplitPattern {
 public:
  PcrePattern(std::string_view onig, std::string_view source)
      : onig_(onig), code_(compiled(onig, source)), context_(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context_.get(), kSteps);
  }

  void find(std::string_view text, Matches& out) const override {
    const Held<pcre2_match_data> data(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    std::size_t from = 0;
    std::size_t done = 0;
    bool matched_before = false;
    while (from <= text.size() && search(text, from, data.get())) {
      const PCRE2_SIZE* at = pcre2_get_ovector_pointer(data.get());
      const std::size_t begin = at[0];
      const std::size_t end = std::max(at[0], at[1]);
      if (begin == end && matched_before && end == done) {  // no empty match behind a match
        from = after(text, from);
        continue;
      }
      if (done < begin)
        out.push_back({std::uint32_t(done), std::uint32_t(begin), false});
      out.push_back({std::uint32_t(begin), std::uint32_t(end), true});
      from = done = end;
      matched_before = true;
    }
    if (done < text.size() || text.empty())
      out.push_back({std::uint32_t(done), std::uint32_t(text.size()), false});
  }

 private:
  static std::size_t after(std::string_view text, std::size_t at) {
    return at < text.size() ? at + std::size_t(utf8_length(static_cast<unsigned char>(text[at])))
                            : at + 1;
  }
  bool search(std::string_view text, std::size_t from, pcre2_match_data* data) const {
    const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                  text.size(), from, PCRE2_NO_UTF_CHECK, data, context_.get());
    if (found == PCRE2_ERROR_NOMATCH)
      return false;
    if (found < 0) {
      throw Error(Exit::input, concat("the pattern ", in_quotes(onig_), " gives up on a text of ",
                                      text.size(), " bytes: ", message_of(found)))
          .hint("cut the text into smaller documents");
    }
    return true;
  }

  std::string onig_;
  Held<pcre2_code> code_;
  Held<pcre2_match_context> context_;
};

}  // namespace

std::unique_ptr<SplitPattern> make_general_pattern(std::string_view expression,
                                                   std::string_view source) {
  if (expression.size() > kLongestExpression) {
    throw Error(Exit::input,
                concat(in_quotes(source), " has a pattern of ", expression.size(),
                       " characters, more than the ", kLongestExpression, " that one may have"))
        .hint("fetch the file again");
  }
  return std::make_unique<PcrePattern>(expression, source);
}

}  // namespace moe
