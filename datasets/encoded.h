// Files as the encoder of a published model gives them to its language model, and what they are
// called: what `images:...,encoder=` and `sounds:...,encoder=` share. They are there to look at
// that model with, so all of them are the valid split. A file is encoded when its sequence is asked
// for.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "datasets/captioned.h"
#include "datasets/dataset.h"
#include "lib/signal/positions.h"
#include "lib/tower/tower.h"

namespace moe {

class EncodedFiles : public Dataset {
 public:
  const DatasetInfo& info() const override {
    return info_;
  }
  // Throws Error(input): there is nothing to train on.
  Piece train_piece(int domain, int tokens, Rng&) const override;
  // Throws Error(input) where a file and its caption take more rows than `tokens`.
  std::optional<Piece> valid_piece(int domain, int tokens, Index piece) const override;

 protected:
  // Rows that follow each other: ids of a text, or rows of the encoder.
  struct Run {
    TokenIds ids;
    std::uint8_t kind = modality::text;
    Index made = 0;     // rows of the encoder, that many in place of ids
    RowRun place = {};  // of these
  };
  using Layout = std::vector<Run>;

  // Reads path=, encoder=, caption=, question=, limit= and vocabulary= of the spec and opens the
  // encoder; the derived maker then its own, and read_files(). what: "picture".
  EncodedFiles(Spec&, const Tokenizer&, const std::string& name, const char* what);
  void read_files(Captioned::IsFile);
  // What stands before the caption, from the size of the file alone. Throws Error(input) that names
  // it where it cannot be read.
  virtual Layout layout_of(const std::filesystem::path&) = 0;
  // The rows that a layout has places for, in order.
  virtual TowerOutput<float> encoded(const std::filesystem::path&) const = 0;

  const Towers<float>& towers() const {
    return towers_;
  }
  // `text` as ids, texts of special tokens as their own ids.
  TokenIds special_ids(const std::string& text) const;
  void add_note(const std::string& note);

  static Run text_run(TokenIds ids, std::uint8_t kind = modality::text) {
    return {.ids = std::move(ids), .kind = kind};
  }

  DatasetInfo info_;

 private:
  struct Item {
    std::filesystem::path path;
    Layout layout;
    TokenIds question, caption;  // with the id of the end, where the tokenizer has one
  };
  void add(const std::string& name, const Paths&);
  Item item_of(const std::filesystem::path&);
  Index rows_of(const Item&) const;
  Piece piece_of(const Item&, int tokens) const;
  void append_made(Piece&, const Item&) const;
  Matrix<int> positions_of(const Item&) const;
  SignalGrid grid_of(const Item&) const;
  int id_of(std::uint8_t kind) const;

  const Tokenizer& tokenizer_;
  std::string name_, what_, path_, caption_, question_;
  TokenIds opening_;  // what stands before a document
  Index limit_ = 0;
  int vocabulary_ = 0;
  std::unique_ptr<Backend<float>> backend_;
  Towers<float> towers_;
  std::vector<std::vector<Item>> domains_;
};

}  // namespace moe
