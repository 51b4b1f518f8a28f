#include "datasets/encoded.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/files/file.h"

namespace moe {

namespace fs = std::filesystem;

namespace {

// Bytes of a file, or of those in a folder.
std::uintmax_t size_of(const fs::path& path) {
  if (!fs::is_directory(path))
    return fs::file_size(path);
  std::uintmax_t all = 0;
  for (const auto& entry : fs::directory_iterator(path))
    all += entry.is_regular_file() ? entry.file_size() : 0;
  return all;
}

// Ids of one kind.
void append(Piece& piece, const TokenIds& ids, std::uint8_t kind) {
  piece.token.insert(piece.token.end(), ids.begin(), ids.end());
  piece.modality.resize(piece.token.size(), kind);
}

}  // namespace

EncodedFiles::EncodedFiles(Spec& spec, const Tokenizer& tokenizer, const std::string& name,
                           const char* what)
    : tokenizer_(tokenizer), name_(name), what_(what), opening_(document_opening(tokenizer)) {
  path_ = spec.get("path", "");
  const fs::path encoder = std::string(spec.get("encoder", ""));
  caption_ = spec.choice("caption", {"auto", "name", "folder"});
  question_ = spec.get("question", "");
  limit_ = spec.get("limit", 0, 0);
  vocabulary_ = spec.get("vocabulary", 0, 0);
  backend_ = make_backend("cpu");
  towers_ = open_towers<float>(encoder, *backend_);
  info_.modalities = true;
}

TokenIds EncodedFiles::special_ids(const std::string& text) const {
  return tokenizer_.encode(text, {.special = SpecialText::ids}).ids;
}

void EncodedFiles::add_note(const std::string& note) {
  info_.notes.push_back(concat(name_, ": ", note));
}

Piece EncodedFiles::train_piece(int, int, Rng&) const {
  throw Error(Exit::input, concat(what_, "s that an encoder reads are not trained on"))
      .hint(concat("split=valid; or ", name_,
                   ": without encoder=, for a model that reads such rows itself"));
}

std::optional<Piece> EncodedFiles::valid_piece(int domain, int tokens, Index piece) const {
  const std::vector<Item>& items = domains_[std::size_t(domain)];
  if (piece >= Index(items.size()))
    return std::nullopt;
  return piece_of(items[std::size_t(piece)], tokens);
}

void EncodedFiles::read_files(Captioned::IsFile is_file) {
  const CaptionedFiles files = captioned_files(path_, is_file, name_);
  for (const auto& [name, paths] : files.domains)
    add(name, paths);
  if (domains_.empty())
    throw Error(Exit::input, concat("'", path_, "' holds no ", what_, " that can be read"));
}

EncodedFiles::Item EncodedFiles::item_of(const fs::path& path) {
  Item item{path, layout_of(path), {}, {}};
  if (!question_.empty())
    item.question = tokenizer_.encode(question_ + " ");
  item.caption = tokenizer_.encode(caption_of(path, caption_));
  if (tokenizer_.boundary() >= 0)
    item.caption.push_back(tokenizer_.boundary());
  return item;
}

void EncodedFiles::add(const std::string& name, const Paths& paths) {
  std::vector<Item> items;
  std::string hashes;
  Index rows = 0;
  for (const fs::path& path : paths) {
    if (limit_ > 0 && Index(items.size()) >= limit_)
      break;
    try {
      items.push_back(item_of(path));
    } catch (const Error& e) {
      if (e.code() != Exit::input || paths.size() == 1)
        throw;
      add_note(concat("left out: ", e.what()));
      continue;
    }
    rows += rows_of(items.back());
    hashes += concat(path.filename().native(), " ", size_of(path), "\n");
  }
  if (items.empty())
    return;
  info_.domains.push_back(name);
  info_.train_tokens.push_back(0);
  info_.valid_tokens.push_back(rows);
  info_.valid_pieces.push_back(Index(items.size()));
  info_.content_hash.push_back(hash_bytes(std::as_bytes(std::span(hashes))));
  domains_.push_back(std::move(items));
}

Index EncodedFiles::rows_of(const Item& item) const {
  Index rows = Index(opening_.size() + item.question.size() + item.caption.size());
  for (const Run& run : item.layout)
    rows += Index(run.ids.size()) + run.made;
  return rows;
}

// Places in time, height and width; empty where the model counts rows.
Matrix<int> EncodedFiles::positions_of(const Item& item) const {
  if (!towers_.three_axes)
    return {};
  const auto text = [](std::size_t length) {
    return RowRun{.length = int(length)};
  };
  std::vector<RowRun> runs{text(opening_.size())};
  for (const Run& run : item.layout)
    runs.push_back(run.made > 0 ? run.place : text(run.ids.size()));
  runs.push_back(text(item.question.size() + item.caption.size()));
  const int merge = towers_.picture ? towers_.picture->patches().multiple : 1;
  return row_positions(runs, merge).position;
}

// How the encoder's rows lie in their picture, line by line; 0 x 0 where they do not.
SignalGrid EncodedFiles::grid_of(const Item& item) const {
  SignalGrid all;
  for (const Run& run : item.layout) {
    if (run.made == 0 && run.kind != modality::text && !run.ids.empty())
      return {};  // ids that count as rows of a picture
    if (run.made == 0)
      continue;
    const int merge = towers_.picture ? towers_.picture->patches().multiple : 1;
    const bool sound = run.kind == modality::audio;
    const Index down = sound ? 1 : run.place.rows / merge;
    const Index across = sound ? run.made : run.place.columns / merge;
    constexpr Index most = std::numeric_limits<std::uint16_t>::max();
    if (down < 1 || across < 1 || down > most || across > most || run.made % (down * across) != 0)
      return {};
    const SignalGrid here{std::uint16_t(down), std::uint16_t(across)};
    if (all != SignalGrid{} && here != all)
      return {};
    all = here;
  }
  return all;
}

int EncodedFiles::id_of(std::uint8_t kind) const {
  const Placeholders& p = towers_.placeholder;
  const auto id = kind == modality::audio ? p.sound : kind == modality::video ? p.video : p.picture;
  const int place = id.value_or(-1);
  return place >= 0 && (vocabulary_ == 0 || place < vocabulary_) ? place : -1;
}

// The layout, the encoder's rows in place of embeddings.
void EncodedFiles::append_made(Piece& piece, const Item& item) const {
  const TowerOutput<float> made = encoded(item.path);
  for (const Run& run : item.layout) {
    append(piece, run.ids, run.kind);
    for (Index i = 0; i < run.made; ++i)
      piece.given.row.push_back(Index(piece.token.size()) + i);
    append(piece, TokenIds(std::size_t(run.made), id_of(run.kind)), run.kind);
  }
  if (Index(piece.given.row.size()) != made.features.rows()) {
    throw Error(Exit::bug, concat("the encoder gave ", made.features.rows(), " rows of ",
                                  in_quotes(item.path), " for ", piece.given.row.size()));
  }
  piece.given.value = made.features;
  for (const Matrix<float>& level : made.deepstack)
    piece.added.push_back({piece.given.row, level});
}

Piece EncodedFiles::piece_of(const Item& item, int tokens) const {
  if (rows_of(item) > tokens) {
    throw Error(Exit::input, concat(in_quotes(item.path), " and its caption take ", rows_of(item),
                                    " rows, and a piece has ", tokens))
        .hint(concat("--length ", rows_of(item)));
  }
  Piece out;
  append(out, opening_, modality::text);
  append_made(out, item);
  append(out, item.question, modality::text);
  out.target.assign(out.token.size(), -1);
  if (!item.caption.empty())
    out.target.back() = item.caption.front();
  append(out, item.caption, modality::text);
  for (std::size_t i = 1; i < item.caption.size(); ++i)
    out.target.push_back(item.caption[i]);
  out.target.resize(out.token.size(), -1);
  out.position = positions_of(item);
  out.grid = grid_of(item);
  return out;
}

}  // namespace moe
