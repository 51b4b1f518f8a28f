// Several datasets as one. Everything drawn is numbered: training sequence n takes domain n mod D
// of its round's shuffle and its own random stream, so a batch depends on (seed, cursor, shape) and
// on nothing that happened before it.
#include "datasets/denoise.h"
#include "lib/core/error.h"
#include "lib/core/shuffle.h"

namespace moe {
namespace {

enum Streams : std::uint64_t { order_stream = 1, piece_stream = 2, valid_stream = 3 };

std::string unique_name(const std::string& name, const std::vector<std::string>& taken) {
  std::string out = name;
  for (int n = 2; std::ranges::find(taken, out) != taken.end(); ++n)
    out = concat(name, "-", n);
  return out;
}

// Adds the piece's rows, whose first is row `first` of the batch.
void append_signal(Batch& batch, const Signal& more, Index first) {
  auto at = std::ranges::find(batch.signal, more.modality, &Signal::modality);
  if (at == batch.signal.end()) {
    batch.signal.push_back({.modality = more.modality, .row = {}, .value = {}});
    at = batch.signal.end() - 1;
  }
  for (const Index t : more.row)
    at->row.push_back(first + t);
  Matrix<float> all(at->value.rows() + more.value.rows(), more.value.cols());
  std::ranges::copy(at->value.flat(), all.data());
  std::ranges::copy(more.value.flat(), all.data() + at->value.size());
  at->value = std::move(all);
}

// What few batches have: empty until a piece has it, then a value for every row or sequence.
template <class T>
void append_rare(std::vector<T>& all, const std::vector<T>& more, std::size_t size, T usual) {
  if (more.empty() && all.empty())
    return;
  all.resize(size - more.size(), usual);
  all.insert(all.end(), more.begin(), more.end());
}

void append_values(RowValues& all, const RowValues& more, Index first) {
  if (more.empty())
    return;
  for (const Index t : more.row)
    all.row.push_back(first + t);
  Matrix<float> both(all.value.rows() + more.value.rows(), more.value.cols());
  std::ranges::copy(all.value.flat(), both.data());
  std::ranges::copy(more.value.flat(), both.data() + all.value.size());
  all.value = std::move(both);
}

// Rows that were made elsewhere, and where they stand: behind the rows that the batch has, of which
// those without positions count from the start of their sequence.
void append_made(Batch& batch, const Piece& piece, Index first) {
  append_values(batch.given, piece.given, first);
  batch.added.resize(std::max(batch.added.size(), piece.added.size()));
  for (std::size_t l = 0; l < piece.added.size(); ++l)
    append_values(batch.added[l], piece.added[l], first);
  if (piece.position.empty() && batch.position.empty())
    return;
  const Index rows = first + Index(piece.token.size());
  Matrix<int> all(3, rows);
  for (Index a = 0; a < 3; ++a) {
    for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
      for (Index t = batch.start[q]; t < batch.start[q + 1]; ++t)
        all(a, t) = batch.position.empty() ? int(t - batch.start[q]) : batch.position(a, t);
    }
    for (Index t = first; t < rows; ++t)
      all(a, t) = piece.position.empty() ? int(t - first) : piece.position(a, t - first);
  }
  batch.position = std::move(all);
}

void append(Batch& batch, int domain, const Piece& piece) {
  const Index first = batch.tokens();
  append_made(batch, piece, first);
  batch.token.insert(batch.token.end(), piece.token.begin(), piece.token.end());
  append_rare<std::uint8_t>(batch.modality, piece.modality, batch.token.size(), modality::text);
  for (const Signal& s : piece.signal)
    append_signal(batch, s, first);
  batch.target.insert(batch.target.end(), piece.target.begin(), piece.target.end());
  if (!piece.valid.empty() || !batch.valid.empty()) {
    batch.valid.resize(std::size_t(batch.start.back()), 1);
    batch.valid.insert(batch.valid.end(), piece.valid.begin(), piece.valid.end());
    batch.valid.resize(batch.token.size(), 1);
  }
  batch.start.push_back(batch.tokens());
  batch.domain.push_back(domain);
  const std::vector<int> question(std::size_t(piece.question >= 0), piece.question);
  append_rare(batch.question, question, batch.domain.size(), -1);
  const std::vector<SignalGrid> grid(std::size_t(piece.grid != SignalGrid{}), piece.grid);
  append_rare(batch.grid, grid, batch.domain.size(), SignalGrid{});
}

// Under which text tokenizers of T5's kind keep their sentinels.
std::string sentinel_text(int n) {
  return concat("<extra_id_", n, ">");
}

}  // namespace

Corpus::~Corpus() = default;
Corpus::Corpus(Corpus&&) noexcept = default;

std::vector<std::string> with_task(const std::vector<std::string>& specs, const std::string& task) {
  std::vector<std::string> out;
  for (const std::string& text : specs) {
    Spec spec(text);
    spec.set("task", task);
    out.push_back(spec.given_text());
  }
  return out;
}

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
  find_sentinels(tokenizer);
  find_start();
  find_places();
  info_.spec = join(specs_, " ");
  if (split_ == Split::valid &&
      std::ranges::all_of(info_.valid_tokens, [](Index n) { return n == 0; })) {
    throw Error(Exit::input, concat("split=valid of ", info_.spec,
                                    " is empty: the text is too short to be split"))
        .hint("give at least 161 bytes a domain, or split=train");
  }
}

namespace {

// The task that a spec names, which then names it with all its options; null = none.
std::unique_ptr<const Denoise> take_task(Spec& spec) {
  if (!spec.has("task"))
    return nullptr;
  auto task = std::make_unique<const Denoise>(spec.get("task", ""));
  spec.set("task", task->resolved());
  spec.get("task", "");
  return task;
}

}  // namespace

void Corpus::add(const std::string& text, const Tokenizer& tokenizer) {
  Spec spec(text);
  const auto& entry = datasets().at(spec.name());
  const auto splits = only_validates(spec) ? std::vector<std::string>{"valid", "train"}
                                           : std::vector<std::string>{"train", "valid"};
  const Split split = spec.choice("split", splits) == "valid" ? Split::valid : Split::train;
  if (!parts_.empty() && split != split_) {
    throw Error(Exit::usage,
                concat("'", text, "' asks for another split than '", specs_.front(), "'"))
        .hint("give every --data the same split=");
  }
  split_ = split;
  tasks_.push_back(take_task(spec));
  parts_.push_back(entry.make(spec, tokenizer));
  specs_.push_back(spec.resolved());
  if (tasks_.back() && parts_.back()->info().start >= 0) {
    throw Error(Exit::usage, concat("'", text,
                                    "' has sources of its own, and its task would make "
                                    "others"))
        .hint("leave task= (--task) out");
  }
  const DatasetInfo& part = parts_.back()->info();
  if (tasks_.back() && !part.signals.empty()) {
    throw Error(Exit::usage, concat("'", text,
                                    "' has pictures or sounds, and a task takes spans "
                                    "out of text"))
        .hint("leave task= (--task) out");
  }
  add_domains(part);
  add_signals(part, specs_.back());
}

// Those of the last part.
void Corpus::add_domains(const DatasetInfo& part) {
  for (std::size_t d = 0; d < part.domains.size(); ++d) {
    owner_.emplace_back(int(parts_.size()) - 1, int(d));
    info_.domains.push_back(unique_name(part.domains[d], info_.domains));
    info_.train_tokens.push_back(part.train_tokens[d]);
    info_.valid_tokens.push_back(part.valid_tokens[d]);
    if (!part.valid_pieces.empty())
      info_.valid_pieces.resize(info_.domains.size() - 1, -1);
    if (!info_.valid_pieces.empty() || !part.valid_pieces.empty())
      info_.valid_pieces.push_back(part.valid_pieces.empty() ? -1 : part.valid_pieces[d]);
    info_.content_hash.push_back(part.content_hash.empty() ? 0 : part.content_hash[d]);
    if (part.valid_tokens[d] == 0) {
      info_.notes.push_back(concat("domain ", info_.domains.back(), ": ", part.train_tokens[d],
                                   " tokens are too few to keep some for validation"));
    }
  }
  info_.notes.insert(info_.notes.end(), part.notes.begin(), part.notes.end());
  info_.vocabulary = std::max(info_.vocabulary, part.vocabulary);
  info_.modalities |= part.modalities || !part.signals.empty();
}

// Its signals and questions beside those of the parts before.
void Corpus::add_signals(const DatasetInfo& part, const std::string& spec) {
  for (const SignalShape& s : part.signals) {
    const auto at = std::ranges::find(info_.signals, s.modality, &SignalShape::modality);
    if (at == info_.signals.end()) {
      info_.signals.push_back(s);
      continue;
    }
    if (at->numbers != s.numbers) {
      throw Error(Exit::usage,
                  concat("'", spec, "' has rows of ", s.numbers, " numbers of the kind ",
                         modality_names()[s.modality], ", and other data have ", at->numbers))
          .hint("the same patch= (or bands=) everywhere: a model has one product for each kind");
    }
    at->places = std::max(at->places, s.places);
  }
  std::ranges::sort(info_.signals, {}, &SignalShape::modality);
  first_question_.push_back(int(info_.questions.size()));
  for (const std::string& question : part.questions)
    info_.questions.push_back(unique_name(question, info_.questions));
}

// Behind all other ids, until a model says where it has them.
void Corpus::find_places() {
  info_.vocabulary += place_ids(info_.signals);
  for (const SignalShape& s : info_.signals)
    first_place_[s.modality] = first_place_id(info_.signals, s.modality, info_.vocabulary);
}

void Corpus::use_places(const SignalShapes& of_model, int vocabulary) {
  for (const SignalShape& s : info_.signals) {
    const SignalShape* own = find_signal(of_model, s.modality);
    if (!own || own->numbers != s.numbers || own->places < s.places) {
      throw Error(Exit::usage,
                  concat("the data bring ", signal_text({s}), " and the model reads ",
                         of_model.empty() ? std::string("text alone") : signal_text(of_model)))
          .hint("data of the same size and patch (or bands) as those it was trained on");
    }
    first_place_[s.modality] = first_place_id(of_model, s.modality, vocabulary);
  }
}

Piece Corpus::placed(Piece piece, std::size_t part) const {
  for (std::size_t t = 0; t < piece.modality.size(); ++t) {
    if (piece.modality[t] != modality::text && piece.given.empty())
      piece.token[t] += first_place_[piece.modality[t]];
  }
  if (piece.question >= 0)
    piece.question += first_question_[part];
  return piece;
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

// Where the text has no id for its end, one behind all others is what a decoder begins and ends
// with.
void Corpus::find_start() {
  std::size_t with_source = 0;
  for (std::size_t p = 0; p < parts_.size(); ++p) {
    with_source += tasks_[p] || parts_[p]->info().start >= 0;
    info_.start = std::max(info_.start, parts_[p]->info().start);
  }
  if (with_source != 0 && with_source != parts_.size()) {
    throw Error(Exit::usage, "some data have a source for an encoder and others have none")
        .hint("--task denoise for all text, and pairs in a run of their own");
  }
  if (with_source == 0 || info_.start >= 0)
    return;
  info_.start = boundary_ >= 0 ? boundary_ : info_.vocabulary;
  info_.vocabulary += boundary_ < 0;
}

// Those of the tokenizer where it has them, else ids behind its own.
void Corpus::find_sentinels(const Tokenizer& tokenizer) {
  int most = 0;
  for (const auto& task : tasks_)
    most = std::max(most, task ? task->sentinels() : 0);
  for (int n = 0; n < most && !info_.bare_ids; ++n) {
    const std::vector<int> ids =
        tokenizer.encode(sentinel_text(n), {.special = SpecialText::ids}).ids;
    if (ids.size() != 1)
      break;
    sentinels_.push_back(ids[0]);
  }
  if (int(sentinels_.size()) == most)
    return;
  sentinels_.clear();
  for (int n = 0; n < most; ++n)
    sentinels_.push_back(info_.vocabulary++);
}

void Corpus::add_piece(Batch& batch, Batch& sources, int domain, std::size_t part, Piece text,
                       Rng& rng) const {
  const Piece piece = tasks_[part] ? tasks_[part]->apply(text, sentinels_, info_.start, rng)
                                   : placed(std::move(text), part);
  append(batch, domain, piece);
  if (!has_sources())
    return;
  const Index first = batch.start[batch.start.size() - 2];
  if (begin_ >= 0 && first < batch.tokens())
    batch.token[std::size_t(first)] = begin_;
  sources.token.insert(sources.token.end(), piece.source.begin(), piece.source.end());
  sources.start.push_back(sources.tokens());
  sources.domain.push_back(domain);
}

int Corpus::drawn_domain(std::uint64_t sequence) const {
  std::vector<int> order(owner_.size());
  std::iota(order.begin(), order.end(), 0);
  Rng rng = Rng(seed_).stream(order_stream).stream(sequence / order.size());
  shuffle(order, rng);
  return order[sequence % order.size()];
}

Batch Corpus::train(std::uint64_t cursor, int sequences, int length) const {
  Batch batch;
  Batch sources;
  for (int q = 0; q < sequences; ++q) {
    const std::uint64_t sequence = cursor * std::uint64_t(sequences) + std::uint64_t(q);
    const int domain = drawn_domain(sequence);
    const auto [part, local] = owner_[domain];
    Rng rng = Rng(seed_).stream(piece_stream).stream(sequence);
    Piece text = parts_[part]->train_piece(local, length, rng);
    add_piece(batch, sources, domain, part, std::move(text), rng);
  }
  if (has_sources())
    batch.source = std::make_shared<const Batch>(std::move(sources));
  return batch;
}

Batch Corpus::valid(const std::vector<PieceNumber>& pieces, int length) const {
  Batch batch;
  Batch sources;
  for (const PieceNumber& number : pieces) {
    const auto [part, local] = owner_.at(std::size_t(number.domain));
    const Dataset& dataset = *parts_[part];
    auto text = dataset.valid_piece(local, length, number.piece);
    if (!text)
      continue;
    // what is taken out of a piece is the same whatever the run's seed
    Rng rng = Rng(0)
                  .stream(valid_stream)
                  .stream(std::uint64_t(number.domain))
                  .stream(std::uint64_t(number.piece));
    add_piece(batch, sources, number.domain, part, std::move(*text), rng);
  }
  if (has_sources())
    batch.source = std::make_shared<const Batch>(std::move(sources));
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
