#include "lib/tokenizer/sentencepiece_normalizer.h"

#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

constexpr std::string_view kSign = "\xE2\x96\x81";  // U+2581

class Normalizing {
 public:
  Normalizing(std::string_view text, const Charsmap& rules, const Trie& user_defined,
              const BlankRules& blanks)
      : input_(text), rules_(rules), user_defined_(user_defined), blanks_(blanks) {}

  NormalizedText run() {
    if (blanks_.remove_extra)
      skip_leading();
    if (at_ == input_.size()) {
      out_.from.push_back(std::uint32_t(at_));
      return std::move(out_);
    }
    if (!blanks_.behind && blanks_.dummy_prefix)
      put_blank();
    bool after_blank = blanks_.remove_extra;
    while (at_ < input_.size()) {
      const Step step = next();
      std::string_view with = step.with;
      while (after_blank && with.starts_with(' '))
        with.remove_prefix(1);
      for (const char c : with)
        put(c);
      if (!with.empty())
        after_blank = with.ends_with(' ');
      at_ += step.bytes;
      after_blank = after_blank && blanks_.remove_extra;
    }
    if (blanks_.remove_extra)
      drop_trailing();
    if (blanks_.behind && blanks_.dummy_prefix)
      put_blank();
    out_.from.push_back(std::uint32_t(at_));
    return std::move(out_);
  }

 private:
  struct Step {
    std::string_view with;
    std::size_t bytes;
  };
  // The next stretch that is rewritten as a whole: a user-defined piece, the left side of a rule,
  // or one character.
  Step next() const {
    const std::string_view rest = input_.substr(at_);
    if (const std::size_t bytes = longest_prefix(user_defined_, rest); bytes > 0)
      return {rest.substr(0, bytes), bytes};
    if (const auto rule = rules_.longest(rest))
      return {rule->with, rule->length};
    const std::size_t bytes = std::size_t(utf8_length(static_cast<unsigned char>(rest[0])));
    return {rest.substr(0, bytes), bytes};
  }
  void skip_leading() {
    while (at_ < input_.size()) {
      const Step step = next();
      if (step.with != " ")
        return;
      at_ += step.bytes;
    }
  }
  std::string_view blank() const {
    return blanks_.escape ? kSign : " ";
  }
  void put_blank() {
    out_.text += blank();
    out_.from.insert(out_.from.end(), blank().size(), std::uint32_t(at_));
  }
  void put(char c) {
    if (c == ' ')
      return put_blank();
    out_.text += c;
    out_.from.push_back(std::uint32_t(at_));
  }
  void drop_trailing() {
    while (out_.text.ends_with(blank())) {
      const std::size_t length = out_.text.size() - blank().size();
      at_ = out_.from[length];
      out_.text.erase(length);
      out_.from.resize(length);
    }
  }

  std::string_view input_;
  const Charsmap& rules_;
  const Trie& user_defined_;
  const BlankRules& blanks_;
  NormalizedText out_;
  std::size_t at_ = 0;
};

}  // namespace

std::size_t longest_prefix(const Trie& pieces, std::string_view text) {
  std::size_t out = 0;
  if (!pieces.empty())
    pieces.prefixes(text, [&](std::size_t bytes, int) { out = bytes; });
  return out;
}

NormalizedText normalize_for_sentencepiece(std::string_view text, const Charsmap& rules,
                                           const Trie& user_defined, const BlankRules& blanks) {
  return Normalizing(text, rules, user_defined, blanks).run();
}

}  // namespace moe
