// The normalizers of a tokenizer.json, each as the library `tokenizers` does it.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tokenizer/base64.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/charsmap.h"
#include "lib/tokenizer/fields.h"
#include "lib/tokenizer/normal_forms.h"
#include "lib/tokenizer/normalizer.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/unicode.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::json;

// Calls what(code, first byte, end) for each character.
template <class What>
void each_char(const Aligned& text, What&& what) {
  for (std::size_t at = 0; at < text.text().size();) {
    const Utf8Char c = utf8_at(text.text().data() + at);
    what(c.code, at, at + std::size_t(c.bytes));
    at += std::size_t(c.bytes);
  }
}

// Each character becomes what rewrite(code, out) puts out for it, all of the same origin.
template <class Rewrite>
void rewrite_chars(Aligned& text, Rewrite&& rewrite) {
  Aligned out(text.tracked());
  each_char(text, [&](char32_t code, std::size_t at, std::size_t) {
    const ByteRange origin = text.tracked() ? text.byte_origin(at) : ByteRange{};
    rewrite(code, [&](char32_t c) { out.append(c, origin); });
  });
  text = std::move(out);
}

bool is_space(char32_t c) {
  return classes_of(c) & char_class::space;
}

class Form final : public Normalizer {
 public:
  explicit Form(NormalForm form) : form_(form) {}
  void apply(Aligned& text) const override {
    if (!leaves(text.text()))
      text.transform(normal_changes(text.text(), form_), 0);
  }
  bool leaves(std::string_view text) const override {
    return is_normal(text, form_);
  }

 private:
  NormalForm form_;
};

class Lowercase final : public Normalizer {
 public:
  void apply(Aligned& text) const override {
    rewrite_chars(text, [](char32_t code, auto&& put) {
      for (const char32_t c : lowercase_of(code))
        put(c);
    });
  }
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(Aligned& text) const override {
    std::size_t begin = text.text().size();
    std::size_t end = 0;
    each_char(text, [&](char32_t code, std::size_t at, std::size_t next) {
      if (is_space(code))
        return;
      begin = std::min(begin, at);
      end = next;
    });
    const bool blank = begin > end;
    const std::size_t first = left_ ? begin : 0;
    const std::size_t last = right_ ? end : text.text().size();
    Aligned out(text.tracked());
    if (!blank || !(left_ || right_))
      out.append(text, first, last);
    text = std::move(out);
  }

 private:
  bool left_, right_;
};

class StripAccents final : public Normalizer {
 public:
  explicit StripAccents(char_class::Bits dropped = char_class::accent) : dropped_(dropped) {}
  void apply(Aligned& text) const override {
    rewrite_chars(text, [&](char32_t code, auto&& put) {
      if (!(classes_of(code) & dropped_))
        put(code);
    });
  }

 private:
  char_class::Bits dropped_;
};

class Replace final : public Normalizer {
 public:
  Replace(std::unique_ptr<SplitPattern> pattern, std::string with)
      : pattern_(std::move(pattern)), with_(std::move(with)) {}
  void apply(Aligned& text) const override {
    Matches matches;
    pattern_->find(text.text(), matches);
    Aligned out(text.tracked());
    for (const Match& m : matches) {
      if (!m.is_match) {
        out.append(text, m.begin, m.end);
        continue;
      }
      // the new characters come from the last one that was matched
      const bool known = text.tracked() && m.end > 0;
      out.append(with_, known ? text.byte_origin(m.end - 1) : ByteRange{});
    }
    text = std::move(out);
  }

 private:
  std::unique_ptr<SplitPattern> pattern_;
  std::string with_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string with) : with_(std::move(with)) {}
  void apply(Aligned& text) const override {
    if (text.text().empty())
      return;
    Aligned out(text.tracked());
    out.append(with_, text.tracked() ? text.byte_origin(0) : ByteRange{});
    out.append(text, 0, text.text().size());
    text = std::move(out);
  }

 private:
  std::string with_;
};

// What sentencepiece's nmt rules do to controls and blanks.
class Nmt final : public Normalizer {
 public:
  void apply(Aligned& text) const override {
    rewrite_chars(text, [](char32_t c, auto&& put) {
      const bool dropped = (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) ||
                           c == 0x7F || c == 0x8F || c == 0x9F;
      const bool blank = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                         c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      if (!dropped)
        put(blank ? U' ' : c);
    });
  }
};

// sentencepiece's rules as `tokenizers` applies them: a cluster below 6 bytes is looked up whole,
// and the shortest rule replaces all of it; else character by character.
class Precompiled final : public Normalizer {
 public:
  explicit Precompiled(Charsmap rules) : rules_(std::move(rules)) {}
  void apply(Aligned& text) const override {
    const std::string& all = text.text();
    std::vector<Change> changes;
    bool modified = false;
    for (std::size_t at = 0; at < all.size();) {
      const std::size_t end = grapheme_end(all, at);
      const std::string_view cluster = std::string_view(all).substr(at, end - at);
      if (cluster.size() < 6 && replace(cluster, changes)) {
        modified = true;
      } else {
        for (std::size_t c = 0; c < cluster.size();) {
          const std::size_t bytes =
              std::size_t(utf8_length(static_cast<unsigned char>(cluster[c])));
          if (replace(cluster.substr(c, bytes), changes))
            modified = true;
          else
            changes.push_back({utf8_at(cluster.data() + c).code, 0});
          c += bytes;
        }
      }
      at = end;
    }
    if (modified)
      text.transform(changes, 0);
  }

 private:
  // Where characters are added, the last ones are those that take no place; where some are lost,
  // the last one that was written takes their places.
  bool replace(std::string_view part, std::vector<Change>& changes) const {
    const auto rule = rules_.shortest(part);
    if (!rule)
      return false;
    const std::u32string with = code_points(rule->with);
    const int more = int(with.size()) - int(code_points(part).size());
    for (const char32_t c : with)
      changes.push_back({c, 0});
    for (int i = 0; i < more && i < int(changes.size()); ++i)
      changes[changes.size() - 1 - std::size_t(i)].change = 1;
    if (more < 0 && !changes.empty())
      changes.back().change += more;
    return true;
  }

  Charsmap rules_;
};

struct BertOptions {
  bool clean, chinese, accents, lowercase;
};

// As BertNormalizer writes its ranges, one of which is a slip of the pen that models were trained
// with: 0x2B920 for 0x2B820.
bool is_bert_chinese(char32_t c) {
  static constexpr CodeRange ranges[] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
                                         {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
                                         {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
  for (const CodeRange& r : ranges) {
    if (c >= r.first && c <= r.last)
      return true;
  }
  return false;
}

class Bert final : public Normalizer {
 public:
  explicit Bert(const BertOptions& options) : options_(options) {}
  void apply(Aligned& text) const override {
    if (options_.clean) {
      rewrite_chars(text, [](char32_t c, auto&& put) {
        if (!(classes_of(c) & char_class::bert_removed))
          put(is_space(c) ? U' ' : c);
      });
    }
    if (options_.chinese) {
      rewrite_chars(text, [](char32_t c, auto&& put) {
        const bool chinese = is_bert_chinese(c);
        if (chinese)
          put(U' ');
        put(c);
        if (chinese)
          put(U' ');
      });
    }
    if (options_.accents) {
      Form(NormalForm::nfd).apply(text);
      StripAccents(char_class::bert_accent).apply(text);
    }
    if (options_.lowercase)
      Lowercase().apply(text);
  }

 private:
  BertOptions options_;
};

class ByteLetters final : public Normalizer {
 public:
  void apply(Aligned& text) const override {
    to_byte_letters(text);
  }
};

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  void apply(Aligned& text) const override {
    for (const auto& step : steps_)
      step->apply(text);
  }
  bool leaves(std::string_view text) const override {
    return std::ranges::all_of(steps_, [&](const auto& step) { return step->leaves(text); });
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

std::unique_ptr<Normalizer> read_sequence(const Fields& f) {
  std::vector<std::unique_ptr<Normalizer>> steps;
  for (const Json& step : f.list("normalizers"))
    steps.push_back(read_normalizer(step, f.source()));
  std::erase(steps, nullptr);
  return std::make_unique<Sequence>(std::move(steps));
}

std::unique_ptr<Normalizer> read_bert(const Fields& f) {
  const bool lowercase = f.flag("lowercase", true);
  return std::make_unique<Bert>(BertOptions{.clean = f.flag("clean_text", true),
                                            .chinese = f.flag("handle_chinese_chars", true),
                                            .accents = f.flag("strip_accents", lowercase),
                                            .lowercase = lowercase});
}

std::unique_ptr<Normalizer> read_precompiled(const Fields& f) {
  const std::string bytes = from_base64(f.text("precompiled_charsmap"), f.source());
  return std::make_unique<Precompiled>(Charsmap(bytes, f.source()));
}

using Read = std::unique_ptr<Normalizer> (*)(const Fields&);

template <NormalForm form>
std::unique_ptr<Normalizer> read_form(const Fields&) {
  return std::make_unique<Form>(form);
}

template <class Plain>
std::unique_ptr<Normalizer> read_plain(const Fields&) {
  return std::make_unique<Plain>();
}

constexpr std::pair<std::string_view, Read> kTypes[] = {
    {"Sequence", read_sequence},
    {"NFC", read_form<NormalForm::nfc>},
    {"NFD", read_form<NormalForm::nfd>},
    {"NFKC", read_form<NormalForm::nfkc>},
    {"NFKD", read_form<NormalForm::nfkd>},
    {"Lowercase", read_plain<Lowercase>},
    {"StripAccents", read_plain<StripAccents>},
    {"Nmt", read_plain<Nmt>},
    {"ByteLevel", read_plain<ByteLetters>},
    {"Strip",
     [](const Fields& f) -> std::unique_ptr<Normalizer> {
       return std::make_unique<Strip>(f.flag("strip_left", true), f.flag("strip_right", true));
     }},
    {"Replace",
     [](const Fields& f) -> std::unique_ptr<Normalizer> {
       return std::make_unique<Replace>(read_pattern(f.at("pattern"), f.source()),
                                        f.text("content"));
     }},
    {"Prepend",
     [](const Fields& f) -> std::unique_ptr<Normalizer> {
       return std::make_unique<Prepend>(f.text("prepend"));
     }},
    {"BertNormalizer", read_bert},
    {"Precompiled", read_precompiled}};

}  // namespace

std::unique_ptr<Normalizer> read_normalizer(const Json& value, std::string_view source) {
  if (value.is_null())
    return nullptr;
  const Fields f = stage_fields(value, source, "normalizer");
  return of_type(kTypes, f.text("type"), source, "normalizer")(f);
}

}  // namespace moe
