// `images:...,encoder=MODEL`: pictures as the encoder of a published model gives them to its
// language model, and what they are called. They are there to look at that model with, so all of
// them are the valid split. A picture is encoded when its sequence is asked for.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "datasets/captioned.h"
#include "datasets/dataset.h"
#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/signal/picture_file.h"
#include "lib/signal/positions.h"
#include "lib/tower/processor.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

struct Item {
  fs::path path;
  PictureGrid grid;
  TokenIds question, caption;  // with the id of the end, where the tokenizer has one
};

class EncodedImages final : public Dataset {
 public:
  EncodedImages(Spec& spec, const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), opening_(document_opening(tokenizer)) {
    path_ = spec.get("path", "");
    const fs::path encoder = std::string(spec.get("encoder", ""));
    caption_ = spec.choice("caption", {"auto", "name", "folder"});
    question_ = spec.get("question", "");
    limit_ = spec.get("limit", 0, 0);
    vocabulary_ = spec.get("vocabulary", 0, 0);
    spec.done();
    info_.spec = spec.resolved();
    backend_ = make_backend("cpu");
    towers_ = open_towers<float>(encoder, *backend_);
    processor_.emplace(towers_.picture->patches(), towers_.processor);
    read_files();
    info_.modalities = true;
  }
  const DatasetInfo& info() const override {
    return info_;
  }
  Piece train_piece(int, int, Rng&) const override {
    throw Error(Exit::input, "pictures that an encoder reads are not trained on")
        .hint("split=valid; or images: without encoder=, for a model that reads patches itself");
  }
  std::optional<Piece> valid_piece(int domain, int tokens, Index piece) const override {
    const std::vector<Item>& items = domains_[std::size_t(domain)];
    if (piece >= Index(items.size()))
      return std::nullopt;
    return piece_of(items[std::size_t(piece)], tokens);
  }

 private:
  void read_files();
  void add(const std::string& name, const Paths&);
  Item item_of(const fs::path&) const;
  Index rows_of(const Item& i) const {
    return Index(opening_.size() + towers_.before.size() + towers_.behind.size() +
                 i.question.size() + i.caption.size()) +
           towers_.picture->rows_of(i.grid);
  }
  Piece piece_of(const Item&, int tokens) const;
  void append_picture(Piece&, const Item&) const;
  Matrix<int> positions_of(const Item&) const;

  const Tokenizer& tokenizer_;
  TokenIds opening_;  // what stands before a document
  std::string path_, caption_, question_;
  Index limit_ = 0;
  int vocabulary_ = 0;
  std::unique_ptr<Backend<float>> backend_;
  Towers<float> towers_;
  std::optional<PictureProcessor> processor_;
  std::vector<std::vector<Item>> domains_;
  DatasetInfo info_;
};

void EncodedImages::read_files() {
  const CaptionedFiles files = captioned_files(path_, is_picture_name, "images");
  for (const auto& [name, paths] : files.domains)
    add(name, paths);
  if (domains_.empty())
    throw Error(Exit::input, concat("'", path_, "' holds no picture that can be read"));
}

Item EncodedImages::item_of(const fs::path& path) const {
  const Picture picture = read_picture(path);
  Item item{path, processor_->grid({picture.height, picture.width}), {}, {}};
  if (!question_.empty())
    item.question = tokenizer_.encode(question_ + " ");
  item.caption = tokenizer_.encode(caption_of(path, caption_));
  if (tokenizer_.boundary() >= 0)
    item.caption.push_back(tokenizer_.boundary());
  return item;
}

void EncodedImages::add(const std::string& name, const Paths& paths) {
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
      info_.notes.push_back(concat("images: left out: ", e.what()));
      continue;
    }
    rows += rows_of(items.back());
    hashes += concat(path.filename().native(), " ", fs::file_size(path), "\n");
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

// Places in time, height and width; empty where the model counts rows.
Matrix<int> EncodedImages::positions_of(const Item& item) const {
  if (!towers_.three_axes)
    return {};
  const auto text = [](std::size_t length) {
    return RowRun{.length = int(length)};
  };
  const RowRun picture{.picture = true,
                       .times = item.grid.times,
                       .rows = item.grid.rows,
                       .columns = item.grid.columns};
  const RowRun runs[] = {text(opening_.size() + towers_.before.size()), picture,
                         text(towers_.behind.size() + item.question.size() + item.caption.size())};
  return row_positions(runs, towers_.picture->patches().multiple).position;
}

// Ids of one kind, and what is to be predicted of them.
void append(Piece& piece, const TokenIds& ids, std::uint8_t kind) {
  piece.token.insert(piece.token.end(), ids.begin(), ids.end());
  piece.modality.resize(piece.token.size(), kind);
}

// The encoder's rows in place of the embeddings from here on.
void EncodedImages::append_picture(Piece& piece, const Item& item) const {
  const PatchRows<float> patches = processor_->rows(read_picture(item.path));
  const TowerOutput<float> made = towers_.picture->encode(patches.row.view(), patches.grid);
  const int place = towers_.placeholder.picture.value_or(-1);
  const bool has_id = place >= 0 && (vocabulary_ == 0 || place < vocabulary_);
  const Index first = Index(piece.token.size());
  append(piece, TokenIds(std::size_t(made.features.rows()), has_id ? place : -1), modality::image);
  for (Index t = 0; t < made.features.rows(); ++t)
    piece.given.row.push_back(first + t);
  piece.given.value = made.features;
  for (const Matrix<float>& level : made.deepstack)
    piece.added.push_back({piece.given.row, level});
}

Piece EncodedImages::piece_of(const Item& item, int tokens) const {
  if (rows_of(item) > tokens) {
    throw Error(Exit::input, concat(in_quotes(item.path), " and its caption take ", rows_of(item),
                                    " rows, and a piece has ", tokens))
        .hint(concat("--length ", rows_of(item)));
  }
  const std::uint8_t frame = towers_.frame_routes ? modality::image : modality::text;
  Piece out;
  append(out, opening_, modality::text);
  append(out, towers_.before, frame);
  append_picture(out, item);
  append(out, towers_.behind, frame);
  append(out, item.question, modality::text);
  out.target.assign(out.token.size(), -1);
  if (!item.caption.empty())
    out.target.back() = item.caption.front();
  append(out, item.caption, modality::text);
  for (std::size_t i = 1; i < item.caption.size(); ++i)
    out.target.push_back(item.caption[i]);
  out.target.resize(out.token.size(), -1);
  out.position = positions_of(item);
  return out;
}

}  // namespace

// Encoders of this model read what images: names, unless the spec says how patches are cut, which
// is for models that read them themselves.
std::vector<std::string> with_encoder(const std::vector<std::string>& specs, const fs::path& model,
                                      int vocabulary) {
  const fs::path config = model / "config.json";
  std::error_code code;
  const bool there =
      fs::is_regular_file(config, code) && has_towers(read_json(config, {.python_words = true}));
  std::vector<std::string> out;
  for (const std::string& text : specs) {
    Spec spec(text);
    const bool ours = there && spec.name() == "images" && !spec.has("size") && !spec.has("patch");
    if (ours && !spec.has("encoder"))
      spec.set("encoder", model.native());
    if (ours && !spec.has("vocabulary"))
      spec.set("vocabulary", concat(vocabulary));
    out.push_back(ours ? spec.given_text() : text);
  }
  return out;
}

std::unique_ptr<Dataset> make_encoded_images(Spec& spec, const Tokenizer& tokenizer) {
  return std::make_unique<EncodedImages>(spec, tokenizer);
}

}  // namespace moe
