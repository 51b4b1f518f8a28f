// tokenizer.json, the file of the library `tokenizers`. Keys `truncation` and `padding` hold what a
// batch was cut and filled to, which is no part of how a text is written in ids; the library's own
// users switch both off for texts.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/fields.h"
#include "lib/tokenizer/pipeline.h"
#include "lib/tokenizer/read.h"

namespace moe {
namespace {

using Json = nlohmann::json;

constexpr JsonLimits kLimits{.bytes = Index(256) << 20};

// Number of entries of the model's vocabulary, behind which added tokens go.
std::size_t read_vocabulary(const Fields& f, Vocabulary& out) {
  const Json& vocab = f.at("vocab");
  if (!vocab.is_object())
    throw f.error("has a field 'vocab' that is no object");
  for (const auto& [text, id] : vocab.items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= (1u << 31))
      throw f.error(concat("gives ", in_quotes(text), " an id that is no whole number"));
    out.add(text, id.get<std::int64_t>(), f.source());
  }
  return vocab.size();
}

// Both halves of "a b" or ["a", "b"].
std::pair<std::string, std::string> read_merge(const Fields& f, const Json& merge) {
  if (merge.is_string()) {
    const std::string& text = merge.get_ref<const std::string&>();
    const std::size_t blank = text.find(' ');
    if (blank != text.npos && text.find(' ', blank + 1) == text.npos)
      return {text.substr(0, blank), text.substr(blank + 1)};
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
             merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  throw f.error(concat("has the merge ",
                       in_quotes(merge.dump(-1, ' ', false, Json::error_handler_t::replace)),
                       ", which is no pair of texts"));
}

int known_id(const Fields& f, const Vocabulary& vocabulary, const std::string& text) {
  const int id = vocabulary.find(text);
  if (id < 0)
    throw f.error(
        concat("merges to or from ", in_quotes(text), ", which is not in its vocabulary"));
  return id;
}

MergeTable read_merges(const Fields& f, const Vocabulary& vocabulary, const std::string& prefix) {
  const Json& merges = f.list("merges");
  MergeTable out(merges.size());
  std::uint32_t rank = 0;
  for (const Json& merge : merges) {
    const auto [left, right] = read_merge(f, merge);
    if (right.size() < prefix.size())
      throw f.error(concat("merges ", in_quotes(right), ", which is shorter than its prefix"));
    const std::string both = left + right.substr(prefix.size());
    out.add(known_id(f, vocabulary, left), known_id(f, vocabulary, right), rank++,
            known_id(f, vocabulary, both));
  }
  return out;
}

// Ids of the letters of bytes, if the vocabulary has them all.
std::optional<std::vector<int>> byte_ids(const Vocabulary& vocabulary) {
  std::vector<int> out;
  for (int b = 0; b < 256; ++b) {
    const int id = vocabulary.find(letters_of_bytes(std::string(1, char(b))));
    if (id < 0)
      return std::nullopt;
    out.push_back(id);
  }
  return out;
}

WholePieces whole_pieces(const Vocabulary& vocabulary) {
  WholePieces out;
  for (int id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.has(id))
      continue;
    if (auto bytes = bytes_of_letters(vocabulary.text(id)))
      out.emplace(std::move(*bytes), id);
  }
  return out;
}

// The library's JSON reader (serde_json) takes all digits as one whole number, rounds that, and
// divides by a power of ten, which may be off by one unit in the last place. Two ways of cutting a
// text whose scores are equal are told apart by it.
double as_the_library_reads(double value) {
  char text[40];
  const auto end =
      std::to_chars(text, text + sizeof(text), std::abs(value), std::chars_format::scientific).ptr;
  std::uint64_t digits = 0;
  int exponent = 0;
  const char* at = text;
  for (bool behind = false; at < end && *at != 'e'; ++at) {
    if (*at == '.') {
      behind = true;
      continue;
    }
    digits = digits * 10 + std::uint64_t(*at - '0');
    exponent -= behind;
  }
  if (at == end)  // not finite
    return value;
  int power = 0;
  const bool negative = at[1] == '-';
  std::from_chars(at + 2, end, power);
  exponent += negative ? -power : power;
  if (std::abs(exponent) > 300)
    return value;
  const double ten = std::pow(10.0, std::abs(exponent));
  const double read = exponent < 0 ? double(digits) / ten : double(digits) * ten;
  return value < 0 ? -read : read;
}

// An id that the model's field names by its text; -1 where the field is absent.
int named_id(const Fields& f, const Vocabulary& vocabulary, const char* name) {
  if (!f.has(name))
    return -1;
  const int id = vocabulary.find(f.text(name));
  if (id < 0)
    throw f.error(
        concat("has the ", name, " ", in_quotes(f.text(name)), ", which is not in its vocabulary"));
  return id;
}

class Reader {
 public:
  explicit Reader(const TokenizerFile& file)
      : file_(file),
        json_(parse_json(file.bytes, file.name, kLimits)),
        top_(json_, file.name, "the file"),
        out_(std::make_unique<Stages>()) {}

  std::unique_ptr<Tokenizer> read() {
    out_->id = file_.id;
    out_->json = file_.bytes;
    out_->config_json = file_.config.json;
    out_->normalizer = read_normalizer(field("normalizer"), file_.name);
    read_model();
    read_added();
    out_->post = read_post_processor(field("post_processor"), file_.name);
    out_->decoder = read_decoder(field("decoder"), file_.name);
    read_special();
    return std::make_unique<Pipeline>(std::move(out_));
  }

 private:
  const Json& field(const char* name) const {
    static const Json nothing;
    return top_.has(name) ? top_.at(name) : nothing;
  }

  void read_model() {
    const Fields f(top_.at("model"), file_.name, "the model");
    const std::string type = f.text("type", guessed_type(f));
    static constexpr std::pair<std::string_view, void (Reader::*)(const Fields&)> types[] = {
        {"BPE", &Reader::bpe},
        {"Unigram", &Reader::unigram},
        {"WordPiece", &Reader::word_piece},
        {"WordLevel", &Reader::word_level}};
    const auto read = of_type(types, type, file_.name, "model");
    (this->*read)(Fields(top_.at("model"), file_.name, concat("the model ", type)));
  }
  // Old files do not name the type of their model.
  static std::string guessed_type(const Fields& f) {
    if (f.has("merges"))
      return "BPE";
    if (f.has("unk_id"))
      return "Unigram";
    return f.has("max_input_chars_per_word") ? "WordPiece" : "WordLevel";
  }

  void read_pre_tokenizer_as(bool take_bytes) {
    out_->pre = read_pre_tokenizer(field("pre_tokenizer"), file_.name, take_bytes);
  }

  void bpe(const Fields& f) {
    if (f.has("dropout") && f.at("dropout") != 0.0)
      throw f.error("has dropout, which would give other ids every time");
    Vocabulary& vocabulary = out_->vocabulary;
    model_size_ = read_vocabulary(f, vocabulary);
    BpeOptions o{.whole_first = f.flag("ignore_merges", false),
                 .byte_fallback = f.flag("byte_fallback", false),
                 .fuse_unknown = f.flag("fuse_unk", false),
                 .prefix = f.text("continuing_subword_prefix", ""),
                 .suffix = f.text("end_of_word_suffix", "")};
    MergeTable merges = read_merges(f, vocabulary, o.prefix);
    auto bytes = byte_ids(vocabulary);
    read_pre_tokenizer_as(bytes && o.prefix.empty() && o.suffix.empty());
    if (out_->pre.bytes) {
      out_->model = make_byte_bpe(std::move(*bytes), std::move(merges),
                                  o.whole_first ? whole_pieces(vocabulary) : WholePieces{});
      return;
    }
    o.unknown = named_id(f, vocabulary, "unk_token");
    out_->model = make_char_bpe(vocabulary, std::move(merges), std::move(o));
  }

  void unigram(const Fields& f) {
    const Json& vocab = f.list("vocab");
    std::vector<double> scores;
    for (const Json& piece : vocab) {
      const bool pair =
          piece.is_array() && piece.size() == 2 && piece[0].is_string() && piece[1].is_number();
      if (!pair)
        throw f.error("has an entry of its vocabulary that is no pair of text and score");
      out_->vocabulary.add(piece[0].get<std::string>(), std::int64_t(scores.size()), file_.name);
      scores.push_back(as_the_library_reads(piece[1].get<double>()));
    }
    model_size_ = scores.size();
    if (f.whole("unk_id") >= std::int64_t(scores.size()))
      throw f.error(
          concat("has the unk_id ", f.whole("unk_id"), ", and ", scores.size(), " pieces"));
    read_pre_tokenizer_as(false);
    out_->model = make_unigram(
        out_->vocabulary, scores,
        {.unknown = int(f.whole("unk_id")), .byte_fallback = f.flag("byte_fallback", false)});
  }

  void word_piece(const Fields& f) {
    model_size_ = read_vocabulary(f, out_->vocabulary);
    read_pre_tokenizer_as(false);
    f.text("unk_token");
    WordPieceOptions o{.unknown = named_id(f, out_->vocabulary, "unk_token"),
                       .prefix = f.text("continuing_subword_prefix", "##"),
                       .longest = std::size_t(f.whole("max_input_chars_per_word", 100))};
    out_->model = make_word_piece(out_->vocabulary, std::move(o));
  }

  void word_level(const Fields& f) {
    model_size_ = read_vocabulary(f, out_->vocabulary);
    read_pre_tokenizer_as(false);
    f.text("unk_token");
    out_->model = make_word_level(out_->vocabulary, named_id(f, out_->vocabulary, "unk_token"));
  }

  // An added token has the id of its text in the vocabulary, or the next one that is free; the id
  // in the file is what the library wrote down, not what it reads.
  void read_added() {
    std::vector<AddedToken> all;
    const Json none = Json::array();
    const Json& list = top_.has("added_tokens") ? top_.list("added_tokens") : none;
    std::unordered_set<std::string> seen;
    std::int64_t highest = -1;
    for (const Json& item : list) {
      const Fields f(item, file_.name, "an added token");
      AddedToken token{.content = f.text("content"),
                       .id = out_->vocabulary.find(f.text("content")),
                       .single_word = f.flag("single_word", false),
                       .left = f.flag("lstrip", false),
                       .right = f.flag("rstrip", false),
                       .normalized = f.flag("normalized", !f.flag("special", false)),
                       .special = f.flag("special", false)};
      if (token.content.empty() || !seen.insert(token.content).second)
        continue;
      if (token.id < 0) {
        const std::int64_t size = std::int64_t(model_size_);
        token.id = int(highest >= size || size == 0 ? highest + 1 : size);
      }
      highest = std::max(highest, std::int64_t(token.id));
      all.push_back(std::move(token));
    }
    out_->added = AddedTokens(std::move(all), out_->normalizer.get());
  }

  int id_of(const std::string& text, int otherwise) const {
    if (text.empty())
      return otherwise;
    const AddedToken* added = out_->added.find(text);
    const int id = added ? added->id : out_->vocabulary.find(text);
    return id >= 0 ? id : otherwise;
  }

  void read_special() {
    const TokenizerConfig& c = file_.config;
    SpecialIds& s = out_->special;
    s = c.ids;
    s.bos = id_of(c.bos, s.bos);
    s.eos = id_of(c.eos, s.eos);
    s.pad = id_of(c.pad, s.pad);
    s.unknown = id_of(c.unknown, s.unknown);
    if (s.eos >= 0 && std::ranges::find(s.ends, s.eos) == s.ends.end())
      s.ends.push_back(s.eos);
    PostProcessor& post = out_->post;
    if (post.before.empty() && post.after.empty() && c.add_bos.value_or(false) && s.bos >= 0)
      post.before.push_back(s.bos);
  }

  const TokenizerFile& file_;
  Json json_;
  Fields top_;
  std::unique_ptr<Stages> out_;
  std::size_t model_size_ = 0;
};

}  // namespace

std::unique_ptr<Tokenizer> read_tokenizer_json(const TokenizerFile& file) {
  return Reader(file).read();
}

}  // namespace moe
