// The decoders of a tokenizer.json, each as the library `tokenizers` does it.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/decoder.h"
#include "lib/tokenizer/fields.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::json;

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (std::size_t at = 0; (at = text.find(what, at)) != text.npos; at += with.size())
    text.replace(at, what.size(), with);
}

// Letters to bytes; what is no letter stays as it is. The bytes together are made valid UTF-8.
class ByteLevel final : public TokenDecoder {
 public:
  void decode(std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      const auto plain = bytes_of_letters(token);
      bytes += plain ? *plain : token;
    }
    tokens.assign(1, whole_text(bytes).text);
  }
};

class Replace final : public TokenDecoder {
 public:
  Replace(std::unique_ptr<SplitPattern> pattern, std::string with)
      : pattern_(std::move(pattern)), with_(std::move(with)) {}
  void decode(std::vector<std::string>& tokens) const override {
    Matches matches;
    for (std::string& token : tokens) {
      matches.clear();
      pattern_->find(token, matches);
      std::string out;
      for (const Match& m : matches) {
        if (m.is_match)
          out += with_;
        else
          out.append(token, m.begin, m.end - m.begin);
      }
      token = std::move(out);
    }
  }

 private:
  std::unique_ptr<SplitPattern> pattern_;
  std::string with_;
};

class WordPiece final : public TokenDecoder {
 public:
  WordPiece(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void decode(std::vector<std::string>& tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      if (i > 0 && token.starts_with(prefix_))
        token.erase(0, prefix_.size());
      else if (i > 0)
        token.insert(0, " ");
      if (cleanup_)
        clean(token);
    }
  }

 private:
  static void clean(std::string& token) {
    static constexpr std::pair<std::string_view, std::string_view> rules[] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [what, with] : rules)
      replace_all(token, what, with);
  }
  std::string prefix_;
  bool cleanup_;
};

// A run of byte pieces becomes its text, or one U+FFFD a byte where it is not valid as a whole.
class ByteFallback final : public TokenDecoder {
 public:
  void decode(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    std::string run;
    const auto flush = [&] {
      if (!run.empty() && is_valid_utf8(run)) {
        out.push_back(run);
      } else {
        for (std::size_t i = 0; i < run.size(); ++i)
          out.push_back("\xEF\xBF\xBD");
      }
      run.clear();
    };
    for (std::string& token : tokens) {
      if (const int byte = byte_of_piece(token); byte >= 0) {
        run += char(byte);
        continue;
      }
      flush();
      out.push_back(std::move(token));
    }
    flush();
    tokens = std::move(out);
  }
};

class Fuse final : public TokenDecoder {
 public:
  void decode(std::vector<std::string>& tokens) const override {
    std::string all;
    for (const std::string& token : tokens)
      all += token;
    tokens.assign(1, std::move(all));
  }
};

class Strip final : public TokenDecoder {
 public:
  Strip(std::string content, std::int64_t start, std::int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void decode(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) {
      for (std::int64_t n = 0; n < start_ && token.starts_with(content_); ++n)
        token.erase(0, content_.size());
      for (std::int64_t n = 0; n < stop_ && token.ends_with(content_); ++n)
        token.resize(token.size() - content_.size());
    }
  }

 private:
  std::string content_;
  std::int64_t start_, stop_;
};

// The sign becomes a blank; in the first token it goes, where the pre-tokenizer put one there.
class Metaspace final : public TokenDecoder {
 public:
  Metaspace(std::string sign, bool in_front) : sign_(std::move(sign)), in_front_(in_front) {}
  void decode(std::vector<std::string>& tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      replace_all(tokens[i], sign_, i == 0 && in_front_ ? "" : " ");
  }

 private:
  std::string sign_;
  bool in_front_;
};

class WordEnd final : public TokenDecoder {
 public:
  explicit WordEnd(std::string suffix) : suffix_(std::move(suffix)) {}
  void decode(std::vector<std::string>& tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      replace_all(tokens[i], suffix_, i + 1 == tokens.size() ? "" : " ");
  }

 private:
  std::string suffix_;
};

class Sequence final : public TokenDecoder {
 public:
  explicit Sequence(std::vector<std::unique_ptr<TokenDecoder>> steps) : steps_(std::move(steps)) {}
  void decode(std::vector<std::string>& tokens) const override {
    for (const auto& step : steps_)
      step->decode(tokens);
  }

 private:
  std::vector<std::unique_ptr<TokenDecoder>> steps_;
};

using Made = std::unique_ptr<TokenDecoder>;
using Read = Made (*)(const Fields&);

std::string not_empty(const Fields& f, const char* name, const std::string& otherwise) {
  const std::string text = f.text(name, otherwise);
  if (text.empty())
    throw f.error(concat("has an empty field '", name, "'"));
  return text;
}

constexpr std::pair<std::string_view, Read> kTypes[] = {
    {"Sequence",
     [](const Fields& f) -> Made {
       std::vector<Made> steps;
       for (const Json& step : f.list("decoders"))
         steps.push_back(read_decoder(step, f.source()));
       std::erase(steps, nullptr);
       return std::make_unique<Sequence>(std::move(steps));
     }},
    {"ByteLevel",
     [](const Fields&) -> Made {
       return std::make_unique<ByteLevel>();
     }},
    {"ByteFallback",
     [](const Fields&) -> Made {
       return std::make_unique<ByteFallback>();
     }},
    {"Fuse",
     [](const Fields&) -> Made {
       return std::make_unique<Fuse>();
     }},
    {"Replace",
     [](const Fields& f) -> Made {
       return std::make_unique<Replace>(read_pattern(f.at("pattern"), f.source()),
                                        f.text("content"));
     }},
    {"Strip",
     [](const Fields& f) -> Made {
       return std::make_unique<Strip>(not_empty(f, "content", " "), f.whole("start", 0),
                                      f.whole("stop", 0));
     }},
    {"WordPiece",
     [](const Fields& f) -> Made {
       return std::make_unique<WordPiece>(f.text("prefix", "##"), f.flag("cleanup", true));
     }},
    {"Metaspace",
     [](const Fields& f) -> Made {
       const std::string old = f.flag("add_prefix_space", true) ? "always" : "never";
       return std::make_unique<Metaspace>(not_empty(f, "replacement", "\xE2\x96\x81"),
                                          f.text("prepend_scheme", old) != "never");
     }},
    {"BPEDecoder", [](const Fields& f) -> Made {
       return std::make_unique<WordEnd>(not_empty(f, "suffix", "</w>"));
     }}};

}  // namespace

std::string byte_piece(unsigned char byte) {
  static constexpr char hex[] = "0123456789ABCDEF";
  return concat("<0x", hex[byte >> 4], hex[byte & 15], ">");
}

int byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>')
    return -1;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9')
      return c - '0';
    const char low = char(c | 32);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
  };
  const int high = digit(piece[3]);
  const int low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::unique_ptr<TokenDecoder> read_decoder(const Json& value, std::string_view source) {
  if (value.is_null())
    return nullptr;
  const Fields f = stage_fields(value, source, "decoder");
  return of_type(kTypes, f.text("type"), source, "decoder")(f);
}

}  // namespace moe
