// The pre-tokenizers of a tokenizer.json, each as the library `tokenizers` does it.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/fields.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/pre_tokenizer.h"
#include "lib/tokenizer/unicode.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::json;

enum class Behaviour { isolated, removed, merged_with_previous, merged_with_next, contiguous };

void merge_with_previous(const Matches& matches, Spans& out) {
  const std::size_t first = out.size();
  bool before = false;
  for (const Match& m : matches) {
    if (m.is_match && !before && out.size() > first)
      out.back().end = m.end;
    else
      out.push_back({m.begin, m.end});
    before = m.is_match;
  }
}

void merge_with_next(const Matches& matches, Spans& out) {
  const std::size_t first = out.size();
  bool before = false;
  for (auto m = matches.rbegin(); m != matches.rend(); ++m) {
    if (m->is_match && !before && out.size() > first)
      out.back().begin = m->begin;
    else
      out.push_back({m->begin, m->end});
    before = m->is_match;
  }
  std::reverse(out.begin() + std::ptrdiff_t(first), out.end());
}

void make_contiguous(const Matches& matches, Spans& out) {
  const std::size_t first = out.size();
  bool before = false;
  for (const Match& m : matches) {
    if (m.is_match == before && out.size() > first)
      out.back().end = m.end;
    else
      out.push_back({m.begin, m.end});
    before = m.is_match;
  }
}

void add_pieces(const Matches& matches, Behaviour behaviour, Spans& out) {
  switch (behaviour) {
    case Behaviour::merged_with_previous:
      return merge_with_previous(matches, out);
    case Behaviour::merged_with_next:
      return merge_with_next(matches, out);
    case Behaviour::contiguous:
      return make_contiguous(matches, out);
    default:
      for (const Match& m : matches) {
        if (!m.is_match || behaviour == Behaviour::isolated)
          out.push_back({m.begin, m.end});
      }
  }
}

class Split final : public PreTokenizer {
 public:
  Split(std::unique_ptr<SplitPattern> pattern, Behaviour behaviour, bool invert)
      : pattern_(std::move(pattern)), behaviour_(behaviour), invert_(invert) {}

  void cut(std::string_view text, Spans& spans) const override {
    Spans out;
    out.reserve(spans.size() == 1 ? text.size() / 4 : spans.size() * 2);
    Matches matches;
    for (const ByteRange& span : spans) {
      matches.clear();
      pattern_->find(text.substr(span.begin, span.size()), matches);
      if (invert_) {
        for (Match& m : matches)
          m.is_match = !m.is_match;
      }
      const std::size_t first = out.size();
      add_pieces(matches, behaviour_, out);
      for (std::size_t i = first; i < out.size(); ++i)
        out[i] = {out[i].begin + span.begin, out[i].end + span.begin};
    }
    std::erase_if(out, [](const ByteRange& r) { return r.size() == 0; });
    spans = std::move(out);
  }

 private:
  std::unique_ptr<SplitPattern> pattern_;
  Behaviour behaviour_;
  bool invert_;
};

// CutText of so many characters each.
class FixedLength final : public PreTokenizer {
 public:
  explicit FixedLength(std::int64_t length) : length_(length) {}
  void cut(std::string_view text, Spans& spans) const override {
    Spans out;
    for (const ByteRange& span : spans) {
      std::uint32_t begin = span.begin;
      std::int64_t n = 0;
      for (std::uint32_t at = span.begin; at < span.end;) {
        at += std::uint32_t(utf8_length(static_cast<unsigned char>(text[at])));
        if (++n % length_ == 0 || at == span.end) {
          out.push_back({begin, at});
          begin = at;
        }
      }
    }
    spans = std::move(out);
  }

 private:
  std::int64_t length_;
};

// A new piece where the script changes. Blanks and unassigned characters go with what stands before
// them; at the start, where nothing does, they are lost, as in the library.
class UnicodeScripts final : public PreTokenizer {
 public:
  void cut(std::string_view text, Spans& spans) const override {
    Spans out;
    for (const ByteRange& span : spans) {
      int last = -1;
      std::uint32_t begin = span.end;
      for (std::uint32_t at = span.begin; at < span.end;) {
        const Utf8Char c = utf8_at(text.data() + at);
        const int script = split_script(c.code);
        if (script != kAnyScript && script != last) {
          if (begin < at)
            out.push_back({begin, at});
          begin = at;
          last = script;
        }
        at += std::uint32_t(c.bytes);
      }
      if (begin < span.end)
        out.push_back({begin, span.end});
    }
    spans = std::move(out);
  }
};

// A step that writes the text anew, piece by piece.
class Rewriting : public PreTokenizer {
 public:
  bool cuts_only() const override {
    return false;
  }
  void cut(std::string_view, Spans&) const override {}
  void apply(CutText& p) const override {
    CutText out{.text = Aligned(p.text.tracked()), .first = p.first};
    for (const ByteRange& span : p.spans) {
      const std::size_t begin = out.text.text().size();
      write(p, span, out.text);
      out.spans.push_back({std::uint32_t(begin), std::uint32_t(out.text.text().size())});
    }
    p = std::move(out);
  }

 protected:
  virtual void write(const CutText& p, const ByteRange& span, Aligned& out) const = 0;
};

// ` ` in front of a piece that does not start with one.
class SpaceInFront final : public Rewriting {
 protected:
  void write(const CutText& p, const ByteRange& span, Aligned& out) const override {
    const bool tracked = p.text.tracked();
    if (span.size() > 0 && p.text.text()[span.begin] != ' ')
      out.append(" ", tracked ? p.text.byte_origin(span.begin) : ByteRange{});
    out.append(p.text, span.begin, span.end);
  }
};

class ByteLetters final : public Rewriting {
 protected:
  void write(const CutText& p, const ByteRange& span, Aligned& out) const override {
    Aligned piece(p.text.tracked());
    piece.append(p.text, span.begin, span.end);
    to_byte_letters(piece);
    out.append(piece, 0, piece.text().size());
  }
};

enum class InFront { always, first, never };

// Blanks become the sign, and the sign stands in front of each piece, the first, or none.
class MetaspaceSigns final : public Rewriting {
 public:
  MetaspaceSigns(std::string sign, InFront in_front, bool begins)
      : sign_(std::move(sign)), in_front_(in_front), begins_(begins) {}
  bool needs_origin() const override {
    return in_front_ == InFront::first && !begins_;
  }

 protected:
  void write(const CutText& p, const ByteRange& span, Aligned& out) const override {
    const std::string& text = p.text.text();
    const auto origin = [&](std::size_t at) {
      return p.text.tracked() ? p.text.byte_origin(at) : ByteRange{};
    };
    const std::string_view piece = std::string_view(text).substr(span.begin, span.size());
    if (!piece.empty() && wanted(p, span) && piece[0] != ' ' && !piece.starts_with(sign_))
      out.append(sign_, origin(span.begin));
    std::size_t done = span.begin;
    for (std::size_t at = span.begin; at < span.end; ++at) {
      if (text[at] != ' ')
        continue;
      out.append(p.text, done, at);
      out.append(sign_, origin(at));
      done = at + 1;
    }
    out.append(p.text, done, span.end);
  }

 private:
  bool wanted(const CutText& p, const ByteRange& span) const {
    if (in_front_ != InFront::first)
      return in_front_ == InFront::always;
    return begins_ ? p.first : p.text.byte_origin(span.begin).begin == 0;
  }

  std::string sign_;
  InFront in_front_;
  bool begins_;  // no step stands before it, so a piece is a stretch
};

using Steps = std::vector<std::unique_ptr<PreTokenizer>>;

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(Steps steps) : steps_(std::move(steps)) {}
  bool cuts_only() const override {
    return std::ranges::all_of(steps_, [](const auto& step) { return step->cuts_only(); });
  }
  bool needs_origin() const override {
    return std::ranges::any_of(steps_, [](const auto& step) { return step->needs_origin(); });
  }
  void cut(std::string_view text, Spans& spans) const override {
    for (const auto& step : steps_)
      step->cut(text, spans);
  }
  void apply(CutText& p) const override {
    for (const auto& step : steps_)
      step->apply(p);
  }

 private:
  Steps steps_;
};

std::unique_ptr<PreTokenizer> split_by(char_class::Bits bits, Behaviour behaviour) {
  return std::make_unique<Split>(make_char_pattern(bits), behaviour, false);
}

Behaviour read_behaviour(const Fields& f, const char* otherwise) {
  static constexpr std::pair<std::string_view, Behaviour> names[] = {
      {"Isolated", Behaviour::isolated},
      {"Removed", Behaviour::removed},
      {"MergedWithPrevious", Behaviour::merged_with_previous},
      {"MergedWithNext", Behaviour::merged_with_next},
      {"Contiguous", Behaviour::contiguous}};
  const std::string wanted = f.text("behavior", otherwise);
  for (const auto& [name, behaviour] : names) {
    if (name == wanted)
      return behaviour;
  }
  throw f.error(concat("has the behavior '", wanted, "', which is none"));
}

// Reads the steps in order; a stage may be more than one step.
class Reader {
 public:
  explicit Reader(std::string_view source) : source_(source) {}

  Steps steps;
  bool ends_in_letters = false;  // the last step is that of letters

  void read(const Json& value, int depth = 0) {
    const Fields f = stage_fields(value, source_, "pre_tokenizer");
    const std::string type = f.text("type");
    if (type == "Sequence") {
      if (depth > 8)
        throw f.error("stands in itself more than 8 deep");
      for (const Json& step : f.list("pretokenizers"))
        read(step, depth + 1);
      return;
    }
    ends_in_letters = false;
    (this->*of_type(types(), type, source_, "pre_tokenizer", {"Sequence"}))(f);
  }

 private:
  using Add = void (Reader::*)(const Fields&);
  static const std::vector<std::pair<std::string_view, Add>>& types() {
    static const std::vector<std::pair<std::string_view, Add>> all = {
        {"ByteLevel", &Reader::byte_level},         {"Split", &Reader::split},
        {"Metaspace", &Reader::metaspace},          {"Digits", &Reader::digits},
        {"Punctuation", &Reader::punctuation},      {"Whitespace", &Reader::whitespace},
        {"WhitespaceSplit", &Reader::blanks},       {"BertPreTokenizer", &Reader::bert},
        {"CharDelimiterSplit", &Reader::delimiter}, {"FixedLength", &Reader::fixed},
        {"UnicodeScripts", &Reader::scripts}};
    return all;
  }

  void byte_level(const Fields& f) {
    if (f.flag("add_prefix_space", true))
      steps.push_back(std::make_unique<SpaceInFront>());
    if (f.flag("use_regex", true))
      steps.push_back(make_split(known_pattern("gpt2"), source_, false));
    steps.push_back(std::make_unique<ByteLetters>());
    ends_in_letters = true;
  }
  void split(const Fields& f) {
    steps.push_back(std::make_unique<Split>(read_pattern(f.at("pattern"), source_),
                                            read_behaviour(f, ""), f.flag("invert", false)));
  }
  void metaspace(const Fields& f) {
    const std::string sign = f.text("replacement", "\xE2\x96\x81");
    const std::string old = f.flag("add_prefix_space", true) ? "always" : "never";
    const std::string scheme = f.text("prepend_scheme", old);
    if (sign.empty() || utf8_length(static_cast<unsigned char>(sign[0])) != int(sign.size()))
      throw f.error("has a replacement that is not one character");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      throw f.error(concat("has the prepend_scheme '", scheme, "', which is none"));
    const InFront in_front = scheme == "always"  ? InFront::always
                             : scheme == "first" ? InFront::first
                                                 : InFront::never;
    steps.push_back(std::make_unique<MetaspaceSigns>(sign, in_front, steps.empty()));
    if (f.flag("split", true)) {
      steps.push_back(
          std::make_unique<Split>(make_literal(sign), Behaviour::merged_with_next, false));
    }
  }
  void digits(const Fields& f) {
    steps.push_back(split_by(char_class::numeric, f.flag("individual_digits", false)
                                                      ? Behaviour::isolated
                                                      : Behaviour::contiguous));
  }
  void punctuation(const Fields& f) {
    steps.push_back(split_by(char_class::split_punctuation, read_behaviour(f, "Isolated")));
  }
  void whitespace(const Fields&) {
    steps.push_back(std::make_unique<Split>(make_pattern("\\w+|[^\\w\\s]+", source_),
                                            Behaviour::removed, true));
  }
  void blanks(const Fields&) {
    steps.push_back(split_by(char_class::space, Behaviour::removed));
  }
  void bert(const Fields&) {
    steps.push_back(split_by(char_class::space, Behaviour::removed));
    steps.push_back(split_by(char_class::split_punctuation, Behaviour::isolated));
  }
  void delimiter(const Fields& f) {
    const std::string text = f.text("delimiter");
    if (text.empty())
      throw f.error("has an empty delimiter");
    steps.push_back(std::make_unique<Split>(make_literal(text), Behaviour::removed, false));
  }
  void fixed(const Fields& f) {
    const std::int64_t length = f.whole("length");
    if (length == 0)
      throw f.error("has the length 0");
    steps.push_back(std::make_unique<FixedLength>(length));
  }
  void scripts(const Fields&) {
    steps.push_back(std::make_unique<UnicodeScripts>());
  }

  std::string_view source_;
};

}  // namespace

PreTokenizerPlan read_pre_tokenizer(const Json& value, std::string_view source, bool take_bytes) {
  PreTokenizerPlan out;
  if (value.is_null())
    return out;
  Reader reader(source);
  reader.read(value);
  if (reader.ends_in_letters && take_bytes) {
    reader.steps.pop_back();
    out.bytes = true;
  }
  if (reader.steps.size() == 1)
    out.steps = std::move(reader.steps[0]);
  else if (!reader.steps.empty())
    out.steps = std::make_unique<Sequence>(std::move(reader.steps));
  return out;
}

std::unique_ptr<PreTokenizer> make_split(std::string_view expression, std::string_view source,
                                         bool drop_gaps) {
  return std::make_unique<Split>(make_pattern(expression, source),
                                 drop_gaps ? Behaviour::removed : Behaviour::isolated, drop_gaps);
}

}  // namespace moe
