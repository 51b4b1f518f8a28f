#include "lib/tokenizer/pipeline.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/unicode.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

constexpr std::size_t kLongestText = std::size_t(1) << 30;

bool is_trimmed(char32_t c) {
  static const char32_t blank_letter = byte_letters()[' '];
  return c == blank_letter || (classes_of(c) & char_class::space);
}

struct Blanks {
  int leading = 0, trailing = 0;
};

Blanks blanks_of(std::string_view token) {
  const std::u32string codes = code_points(token);
  const auto first = std::ranges::find_if_not(codes, is_trimmed);
  const auto last = std::find_if_not(codes.rbegin(), codes.rend(), is_trimmed);
  return {int(first - codes.begin()), int(last - codes.rbegin())};
}

// Bytes [begin, end) of `text` without so many characters, as far as there are any.
void drop_front(std::string_view text, ByteRange& r, int characters) {
  for (; characters > 0 && r.begin < r.end; --characters)
    r.begin += std::uint32_t(utf8_length(static_cast<unsigned char>(text[r.begin])));
  r.begin = std::min(r.begin, r.end);
}

void drop_back(std::string_view text, ByteRange& r, int characters) {
  for (; characters > 0 && r.end > r.begin; --characters) {
    do
      --r.end;
    while (r.end > r.begin && (static_cast<unsigned char>(text[r.end]) & 0xC0) == 0x80);
  }
}

}  // namespace

std::string_view text_to_encode(std::string_view text, std::string& storage) {
  if (text.size() >= kLongestText) {
    throw Error(Exit::input, concat("a text of ", text.size(),
                                    " bytes is too long to encode: 1 GiB is the most"))
        .hint("cut it into documents");
  }
  if (is_valid_utf8(text))
    return text;
  storage = whole_text(text).text;
  return storage;
}

// One call of encode().
class Pipeline::Encoder {
 public:
  Encoder(const Stages& stages, const EncodeOptions& options, ModelWork& work,
          std::string_view text)
      : stages_(stages),
        options_(options),
        work_(work),
        text_(text),
        tracked_(options.offsets || (stages.pre.steps && stages.pre.steps->needs_origin())),
        special_is_text_(policy() == SpecialText::text) {}

  Encoded run() {
    if (options_.frame)
      add_frame(stages_.post.before);
    Spans parts{{0, std::uint32_t(text_.size())}};
    if (stages_.guard)
      parts = stages_.guard(text_);
    for (const ByteRange& part : parts)
      encode_part(part);
    if (options_.frame)
      add_frame(stages_.post.after);
    return std::move(out_);
  }

 private:
  SpecialText policy() const {
    if (options_.special != SpecialText::own)
      return options_.special;
    return options_.frame ? stages_.framed : stages_.bare;
  }

  void add_frame(const std::vector<int>& ids) {
    out_.ids.insert(out_.ids.end(), ids.begin(), ids.end());
    if (options_.offsets)
      out_.at.resize(out_.ids.size());
  }

  void encode_part(const ByteRange& part) {
    const std::string_view text = text_.substr(part.begin, part.size());
    std::vector<TextStretch> stretches;
    stages_.added.plain().split(text, special_is_text_, stretches);
    for (const TextStretch& s : stretches) {
      const ByteRange at{part.begin + s.begin, part.begin + s.end};
      if (s.id >= 0)
        put(s.id, at, text_.substr(at.begin, at.size()));
      else
        encode_stretch(at.begin, at.end);
    }
  }

  void encode_stretch(std::uint32_t begin, std::uint32_t end) {
    const std::string_view text = text_.substr(begin, end - begin);
    const bool as_it_is = !stages_.normalizer || stages_.normalizer->leaves(text);
    const bool only_cut = !stages_.pre.steps || stages_.pre.steps->cuts_only();
    if (!tracked_ && as_it_is && only_cut)
      return encode_plain(text);
    Aligned aligned(text, begin, tracked_);
    if (!as_it_is)
      stages_.normalizer->apply(aligned);
    std::vector<TextStretch> stretches;
    stages_.added.normalized().split(aligned.text(), special_is_text_, stretches);
    for (const TextStretch& s : stretches) {
      if (s.id >= 0) {
        const std::string_view all = aligned.text();
        put(s.id, tracked_ ? aligned.origin(s.begin, s.end) : ByteRange{},
            all.substr(s.begin, s.end - s.begin));
        continue;
      }
      const bool whole = s.begin == 0 && s.end == aligned.text().size();
      CutText pieces{.text = Aligned(tracked_), .first = begin == 0 && s.begin == 0};
      if (whole)
        pieces.text = aligned;
      else
        pieces.text.append(aligned, s.begin, s.end);
      if (!whole && tracked_)
        pieces.first = pieces.text.byte_origin(0).begin == 0;
      encode_pieces(pieces);
    }
  }

  // Nothing is rewritten and no offsets are wanted.
  void encode_plain(std::string_view text) {
    const AddedTokenFinder& added = stages_.added.normalized();
    if (added.empty())
      return cut_and_encode(text);
    std::vector<TextStretch> stretches;
    added.split(text, special_is_text_, stretches);
    for (const TextStretch& s : stretches) {
      if (s.id >= 0)
        out_.ids.push_back(s.id);
      else
        cut_and_encode(text.substr(s.begin, s.end - s.begin));
    }
  }

  void cut_and_encode(std::string_view text) {
    Spans spans{{0, std::uint32_t(text.size())}};
    if (stages_.pre.steps)
      stages_.pre.steps->cut(text, spans);
    for (const ByteRange& span : spans)
      stages_.model->encode_ids(text.substr(span.begin, span.size()), work_, out_.ids);
  }

  void encode_pieces(CutText& pieces) {
    pieces.spans = {{0, std::uint32_t(pieces.text.text().size())}};
    if (stages_.pre.steps)
      stages_.pre.steps->apply(pieces);
    const std::string_view text = pieces.text.text();
    for (const ByteRange& span : pieces.spans) {
      if (span.size() == 0)
        continue;
      const std::string_view piece = text.substr(span.begin, span.size());
      if (!options_.offsets) {
        stages_.model->encode_ids(piece, work_, out_.ids);
        continue;
      }
      work_.tokens.clear();
      stages_.model->encode(piece, work_, work_.tokens);
      for (const Token& t : work_.tokens) {
        put(t.id, pieces.text.origin(span.begin + t.begin, span.begin + t.end),
            stages_.vocabulary.has(t.id) ? std::string_view(stages_.vocabulary.text(t.id)) : "");
      }
    }
  }

  void put(int id, ByteRange at, std::string_view token) {
    if (options_.offsets) {
      for (const bool keeps_first : stages_.post.trims)
        trim(at, token, keeps_first);
      out_.at.push_back(at);
    }
    out_.ids.push_back(id);
  }

  // As the library takes blanks off offsets: one character of the text for each of the token.
  void trim(ByteRange& at, std::string_view token, bool keeps_first) const {
    const Blanks blanks = blanks_of(token);
    const std::size_t frame = options_.frame ? stages_.post.before.size() : 0;
    const bool first = out_.ids.size() == frame || at.begin == 0;
    if (!(first && keeps_first))
      drop_front(text_, at, blanks.leading);
    drop_back(text_, at, blanks.trailing);
  }

  const Stages& stages_;
  const EncodeOptions& options_;
  ModelWork& work_;
  std::string_view text_;
  bool tracked_, special_is_text_;
  Encoded out_;
};

Pipeline::Pipeline(std::unique_ptr<Stages> stages) : stages_(std::move(stages)) {}

int Pipeline::vocabulary() const {
  return std::max(stages_->vocabulary.size(), stages_->added.size());
}

int Pipeline::boundary() const {
  const SpecialIds& s = stages_->special;
  return s.eos >= 0 ? s.eos : s.bos;
}

Encoded Pipeline::encode(std::string_view text, const EncodeOptions& options) const {
  std::string storage;
  const std::string_view whole = text_to_encode(text, storage);
  WorkPool<ModelWork>::Loan work(pool_);
  return Encoder(*stages_, options, *work, whole).run();
}

std::string Pipeline::decode_bytes(const std::vector<int>& ids, bool skip_special) const {
  std::string out;
  for (const int id : ids) {
    const AddedToken* added = stages_->added.find(id);
    if (added && !(skip_special && added->special))
      out += added->content;
    else if (!added && stages_->vocabulary.has(id))
      out += stages_->vocabulary.text(id);
  }
  return whole_text(out).text;
}

std::string Pipeline::decode(const std::vector<int>& ids, bool skip_special) const {
  if (stages_->decodes_bytes)
    return decode_bytes(ids, skip_special);
  std::vector<std::string> tokens;
  for (const int id : ids) {
    const AddedToken* added = stages_->added.find(id);
    if (!added && !stages_->vocabulary.has(id))
      continue;
    const std::string& text = added ? added->content : stages_->vocabulary.text(id);
    if (!skip_special || !stages_->added.is_special(text))
      tokens.push_back(text);
  }
  if (!stages_->decoder)
    return join(tokens, " ");
  stages_->decoder->decode(tokens);
  return join(tokens, "");
}

namespace {

// Half characters, and what a text of fixed length could not end with, as <0xE4>.
std::string shown_bytes(const std::string& text) {
  if (is_valid_utf8(text) && text.find('\0') == text.npos)
    return text;
  std::string out;
  for (const char c : text)
    out += byte_piece(static_cast<unsigned char>(c));
  return out;
}

}  // namespace

std::vector<std::string> Pipeline::pieces() const {
  std::vector<std::string> out(static_cast<std::size_t>(vocabulary()));
  for (int id = 0; id < vocabulary(); ++id) {
    std::string& piece = out[std::size_t(id)];
    if (const AddedToken* added = stages_->added.find(id))
      piece = added->content;
    else if (stages_->vocabulary.has(id))
      piece = stages_->decodes_bytes ? shown_bytes(stages_->vocabulary.text(id))
                                     : whole_text(stages_->vocabulary.text(id)).text;
  }
  return out;
}

}  // namespace moe
