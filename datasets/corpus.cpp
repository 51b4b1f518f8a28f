// Several datasets as one. Everything drawn is numbered: training sequence n takes domain n mod D
// of its round's shuffle and its own random stream, so a batch depends on (seed, cursor, shape) and
// on nothing that happened before it.
#include "datasets/dataset.h"
#include "lib/core/error.h"

namespace moe {
namespace {

enum Streams : std::uint64_t { order_stream = 1, piece_stream = 2 };

std::string unique_name(const std::string& name, const std::vector<std::string>& taken) {
  std::string out = name;
  for (int n = 2; std::ranges::find(taken, out) != taken.end(); ++n)
    out = concat(name, "-", n);
  return out;
}

void append_content(Batch& batch, const TokenIds& ids) {
  batch.token.insert(batch.token.end(), ids.begin(), ids.end());
}

void append(Batch& batch, int domain, const Piece& piece) {
  std::visit([&](const auto& content) { append_content(batch, content); }, piece.content);
  batch.target.insert(batch.target.end(), piece.target.begin(), piece.target.end());
  if (!piece.valid.empty() || !batch.valid.empty()) {
    batch.valid.resize(std::size_t(batch.start.back()), 1);
    batch.valid.insert(batch.valid.end(), piece.valid.begin(), piece.valid.end());
    batch.valid.resize(batch.token.size(), 1);
  }
  batch.start.push_back(batch.tokens());
  batch.domain.push_back(domain);
}

}  // namespace

Corpus::Corpus(const std::vector<std::string>& specs, const Tokenizer& tokenizer,
               std::uint64_t seed)
    : seed_(seed) {
  if (specs.empty()) {
    throw Error(Exit::usage, "no data was named")
        .hint("--data text:path=FOLDER, or --data system for text found on this machine");
  }
  for (const std::string& text : specs)
    add(text, tokenizer);
  info_.bare_ids =
      std::ranges::all_of(parts_, [](const auto& part) { return part->info().bare_ids; });
  if (!info_.bare_ids) {
    info_.vocabulary = std::max(info_.vocabulary, tokenizer.vocabulary());
    boundary_ = tokenizer.boundary();
  }
  find_pieces(tokenizer);
  info_.spec = join(specs_, " ");
  if (split_ == Split::valid &&
      std::ranges::all_of(info_.valid_tokens, [](Index n) { return n == 0; })) {
    throw Error(Exit::input, concat("split=valid of ", info_.spec,
                                    " is empty: the text is too short to be split"))
        .hint("give at least 161 bytes a domain, or split=train");
  }
}

void Corpus::add(const std::string& text, const Tokenizer& tokenizer) {
  Spec spec(text);
  const auto& entry = datasets().at(spec.name());
  const Split split =
      spec.choice("split", {"train", "valid"}) == "valid" ? Split::valid : Split::train;
  if (!parts_.empty() && split != split_) {
    throw Error(Exit::usage,
                concat("'", text, "' asks for another split than '", specs_.front(), "'"))
        .hint("give every --data the same split=");
  }
  split_ = split;
  parts_.push_back(entry.make(spec, tokenizer));
  specs_.push_back(spec.resolved());
  const DatasetInfo& part = parts_.back()->info();
  for (std::size_t d = 0; d < part.domains.size(); ++d) {
    owner_.emplace_back(int(parts_.size()) - 1, int(d));
    info_.domains.push_back(unique_name(part.domains[d], info_.domains));
    info_.train_tokens.push_back(part.train_tokens[d]);
    info_.valid_tokens.push_back(part.valid_tokens[d]);
    info_.content_hash.push_back(part.content_hash.empty() ? 0 : part.content_hash[d]);
    if (part.valid_tokens[d] == 0) {
      info_.notes.push_back(concat("domain ", info_.domains.back(), ": ", part.train_tokens[d],
                                   " tokens are too few to keep some for validation"));
    }
  }
  info_.notes.insert(info_.notes.end(), part.notes.begin(), part.notes.end());
  info_.vocabulary = std::max(info_.vocabulary, part.vocabulary);
}

// All ids of a corpus are of one tokenizer, as far as it is known.
void Corpus::find_pieces(const Tokenizer& text) {
  bool all = true;
  for (const auto& part : parts_) {
    const auto& named = part->info().pieces;
    all &= named != nullptr;
    const Tokenizer* other = info_.bare_ids ? info_.pieces.get() : &text;
    if (named && other && named->id() != other->id()) {
      throw Error(Exit::usage,
                  concat("the data are ids of two tokenizers: ", named->id(), " and ", other->id()))
          .hint("the same pieces= for every --data, and text in a call of its own");
    }
    if (named)
      info_.pieces = named;
  }
  if (!all || !info_.bare_ids)
    info_.pieces = nullptr;
  else
    boundary_ = info_.pieces->boundary();
}

int Corpus::drawn_domain(std::uint64_t sequence) const {
  std::vector<int> order(owner_.size());
  std::iota(order.begin(), order.end(), 0);
  Rng rng = Rng(seed_).stream(order_stream).stream(sequence / order.size());
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[rng.below(Index(i))]);
  return order[sequence % order.size()];
}

Batch Corpus::train(std::uint64_t cursor, int sequences, int length) const {
  Batch batch;
  for (int q = 0; q < sequences; ++q) {
    const std::uint64_t sequence = cursor * std::uint64_t(sequences) + std::uint64_t(q);
    const int domain = drawn_domain(sequence);
    const auto [part, local] = owner_[domain];
    Rng rng = Rng(seed_).stream(piece_stream).stream(sequence);
    append(batch, domain, parts_[part]->train_piece(local, length, rng));
  }
  return batch;
}

Batch Corpus::valid(const std::vector<PieceNumber>& pieces, int length) const {
  Batch batch;
  for (const PieceNumber& number : pieces) {
    const auto [part, local] = owner_.at(std::size_t(number.domain));
    const Dataset& dataset = *parts_[part];
    if (const auto piece = dataset.valid_piece(local, length, number.piece))
      append(batch, number.domain, *piece);
  }
  return batch;
}

std::vector<int> Corpus::planted_labels(const Batch& batch) const {
  for (const auto& part : parts_) {
    if (part->planted_labels({0}).empty())
      return {};
  }
  if (batch.domain.empty())
    return {};
  std::vector<int> all;
  for (Index q = 0; q < batch.sequences(); ++q) {
    const TokenIds token(batch.token.begin() + batch.start[q],
                         batch.token.begin() + batch.start[std::size_t(q) + 1]);
    const int owner = owner_.at(std::size_t(batch.domain[q])).first;
    const std::vector<int> labels = parts_[owner]->planted_labels(token);
    all.insert(all.end(), labels.begin(), labels.end());
  }
  return all;
}

}  // namespace moe
