// The cut is by blocks numbered from the start of the domain; which of them are valid is a function
// of the number. Blocks that follow each other in a document and a split are encoded as one
// stretch.
#include "datasets/stream.h"

#include "lib/core/error.h"
#include "lib/files/file.h"

namespace moe {
namespace {

constexpr Index kFirstBlock = 128, kBlock = 8192, kGroup = 10;

Index block_size(Index position) {
  return std::clamp(position / 8, kFirstBlock, kBlock);
}

// One block of each ten, drawn by the group's number; the second of the first ten, so that 161
// bytes already have a valid block.
bool is_valid_block(Index block) {
  const Index group = block / kGroup;
  return block % kGroup == (group == 0 ? 1 : Rng(0, std::uint64_t(group)).below(kGroup));
}

// A good place to cut near `at`: the document's end, a line's end within `window`, or the next
// whole character.
Index good_cut(std::string_view text, Index at, Index window) {
  if (Index(text.size()) - at <= window)
    return Index(text.size());
  const auto line = text.substr(std::size_t(at - 1), std::size_t(window)).find('\n');
  return line != text.npos ? at + Index(line) : character_edge(text, at);
}

}  // namespace

std::vector<Stretch> split_blocks(const std::vector<Document>& documents) {
  std::vector<Stretch> out;
  Index position = 0;
  Index block = 0;
  Index until = block_size(0);  // in the documents laid end to end
  for (Index d = 0; d < Index(documents.size()); ++d) {
    const std::string_view text = documents[d].text;
    for (Index at = 0; at < Index(text.size());) {
      const Index wanted = until - position;
      const Index left = Index(text.size()) - at;
      const Index end = wanted >= left ? Index(text.size())
                                       : good_cut(text, at + wanted, block_size(position) / 4);
      const Split split = is_valid_block(block) ? Split::valid : Split::train;
      if (!out.empty() && out.back().document == d && out.back().split == split)
        out.back().last = end;
      else
        out.push_back({d, at, end, split});
      position += end - at;
      at = end;
      if (position >= until) {
        ++block;
        until = position + block_size(position);
      }
    }
  }
  return out;
}

void TokenStream::push(int id) {
  if (id > 0xFFFF && high_.empty())
    high_.resize(low_.size());
  low_.push_back(std::uint16_t(id & 0xFFFF));
  if (id > 0xFFFF || !high_.empty())
    high_.push_back(std::uint16_t(id >> 16));
}
void TokenStream::add(const std::vector<int>& ids) {
  for (const int id : ids)
    push(id);
}
void TokenStream::add_unfinished(const std::vector<int>& ids,
                                 const std::vector<std::uint8_t>& marks, bool goes_on) {
  if (!marks.empty() || !marks_.empty()) {
    marks_.resize(low_.size());
    marks_.insert(marks_.end(), marks.begin(), marks.end());
    marks_.resize(low_.size() + ids.size());
  }
  add(ids);
  if (!goes_on && !ids.empty())
    unfinished_.push_back(size() - 1);
}
void TokenStream::add(const std::vector<int>& opening, const std::vector<int>& ids, bool finished) {
  add(opening);
  add(ids);
  if (!finished && size() > 0)
    unfinished_.push_back(size() - 1);
}

int TokenStream::target(Index i) const {
  const Index next = (i + 1) % size();
  const bool none = mark(i) & token_mark::padding || mark(next) != 0 ||
                    std::ranges::binary_search(unfinished_, i);
  return none ? -1 : id(next);
}

Piece TokenStream::piece(Index first, Index count) const {
  TokenIds token;
  Piece out;
  bool padded = false;
  for (const bool padding : {false, true}) {
    for (Index i = first; i < first + count; ++i) {
      const Index at = i % size();
      if (bool(mark(at) & token_mark::padding) != padding)
        continue;
      token.push_back(id(at));
      out.target.push_back(target(at));
      padded = padding;
    }
    if (marks_.empty())
      break;
    if (!padding)
      out.valid.assign(token.size(), 1);
  }
  if (padded)
    out.valid.resize(token.size(), 0);
  else
    out.valid.clear();
  out.token = std::move(token);
  return out;
}

std::uint64_t TokenStream::hash() const {
  const std::uint64_t parts[] = {hash_bytes(std::as_bytes(std::span(low_))),
                                 hash_bytes(std::as_bytes(std::span(high_))),
                                 hash_bytes(std::as_bytes(std::span(marks_))),
                                 hash_bytes(std::as_bytes(std::span(unfinished_)))};
  return hash_bytes(std::as_bytes(std::span(parts)));
}

std::uint64_t content_hash(const TokenStream& train, const TokenStream& valid) {
  const std::uint64_t parts[] = {train.hash(), valid.hash()};
  return hash_bytes(std::as_bytes(std::span(parts)));
}

std::optional<Piece> TokenStream::consecutive(int tokens, Index number) const {
  const Index first = number * tokens;
  if (first >= size())
    return std::nullopt;
  Piece out = piece(first, std::min<Index>(tokens, size() - first));
  if (first + tokens >= size())
    out.target.back() = -1;
  return out;
}

namespace {

// How many of these ids stand for the text of a special token: not those of unknown characters,
// which come however the text is read.
Index special_texts(std::string_view text, const std::vector<int>& ids, const Tokenizer& t) {
  const auto count = [&](const std::vector<int>& list) {
    return Index(std::ranges::count_if(list, [&](int id) { return t.is_special(id); }));
  };
  const Index all = count(ids);
  return all == 0 ? 0 : all - count(t.encode(text, {.special = SpecialText::text}).ids);
}

// Every document in one piece, for validation.
std::vector<Stretch> all_valid(const std::vector<Document>& documents) {
  std::vector<Stretch> out;
  for (Index d = 0; d < Index(documents.size()); ++d)
    out.push_back({d, 0, Index(documents[std::size_t(d)].text.size()), Split::valid});
  return out;
}

}  // namespace

StreamDataset::StreamDataset(Spec& spec, const Tokenizer& tokenizer, SpecialText special,
                             bool whole)
    : special_(special), whole_(whole) {
  info_.spec = spec.resolved();
  info_.vocabulary = tokenizer.vocabulary();
}

void StreamDataset::add(const DomainText& domain, const Tokenizer& tokenizer) {
  note_left_out(domain);
  if (domain.documents.empty())
    return;
  const std::vector<int> opening = document_opening(tokenizer);
  TokenStream train, valid;
  Index special = 0;
  for (const Stretch& s : whole_ ? all_valid(domain.documents) : split_blocks(domain.documents)) {
    const Document& document = domain.documents[s.document];
    const auto text =
        std::string_view(document.text).substr(std::size_t(s.first), std::size_t(s.last - s.first));
    const bool finished = s.last == Index(document.text.size()) && document.whole;
    const std::vector<int> ids = tokenizer.encode(text, {.special = special_}).ids;
    special += special_texts(text, ids, tokenizer);
    (s.split == Split::valid ? valid : train).add(opening, ids, finished);
  }
  note_special(domain.name, special);
  info_.domains.push_back(domain.name);
  info_.train_tokens.push_back(train.size());
  info_.valid_tokens.push_back(valid.size());
  info_.content_hash.push_back(content_hash(train, valid));
  train_.push_back(std::move(train));
  valid_.push_back(std::move(valid));
}

void StreamDataset::add_note(const std::string& kind, const std::string& about) {
  for (std::string& note : info_.notes) {
    if (note.starts_with(kind))
      return void(note += ", " + about);
  }
  info_.notes.push_back(concat(kind, ": ", about));
}

void StreamDataset::note_left_out(const DomainText& domain) {
  const auto counted = [&](Index count) {
    return concat(domain.name, " (", count, " ", domain.counted, count == 1 ? ")" : "s)");
  };
  if (domain.limited)
    add_note("cut at limit", domain.name);
  if (domain.copies > 0)
    add_note(concat("left out, the same as another ", domain.counted), counted(domain.copies));
  if (domain.empty > 0)
    add_note("left out, empty", counted(domain.empty));
  if (domain.binary > 0)
    add_note("left out, not text", concat(counted(domain.binary), ", as ", domain.first_binary));
  if (domain.json_files > 0) {
    add_note("read as it stands, JSON and all (field=KEY reads the texts of JSON lines)",
             domain.name);
  }
}

// Whoever reads a text that speaks of <|endoftext|> should know that the model saw its end there.
void StreamDataset::note_special(const std::string& domain, Index ids) {
  if (ids > 0 && special_ != SpecialText::ids) {
    add_note(
        "the texts of special tokens became their ids (--special-tokens text reads them as "
        "text)",
        concat(domain, " (", ids, ")"));
  }
}

Piece StreamDataset::train_piece(int domain, int tokens, Rng& rng) const {
  const TokenStream& stream = train_.at(std::size_t(domain));
  if (stream.size() <= tokens) {
    throw Error(Exit::input, concat("domain '", info_.domains[domain], "' has ", stream.size(),
                                    " training tokens, too few for a piece of ", tokens))
        .hint(whole_ ? "whole=1 keeps all of it for split=valid"
                     : "give it more text, leave it out with glob=, or train with a shorter "
                       "context");
  }
  // every token is equally likely: the stream is a ring
  return stream.piece(rng.below(stream.size()), tokens);
}

std::optional<Piece> StreamDataset::valid_piece(int domain, int tokens, Index piece) const {
  return valid_.at(std::size_t(domain)).consecutive(tokens, piece);
}

}  // namespace moe
