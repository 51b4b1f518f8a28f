// `rows`: sequences whose rows were made elsewhere, by the encoders of a model of several
// modalities or by another engine: vectors in the place of embeddings, with ids where there is
// text, places in time, height and width, and rows that are added behind layers
// (docs/given-rows.md). They are there to look at a model with, so all of them are the valid split,
// but for the first ones where train= says how many are to be trained on.
#include <algorithm>

#include "datasets/dataset.h"
#include "lib/core/error.h"
#include "lib/core/fnv.h"
#include "lib/trace/given_rows.h"

namespace moe {
namespace {

std::uint64_t hash_of(const Batch& b) {
  Fnv1a hash;
  for (const int id : b.token)
    hash.add(std::uint64_t(std::int64_t(id)));
  for (const float v : b.given.value.flat())
    hash.add(std::uint64_t(std::int64_t(double(v) * 65536)));
  return hash.value();
}

class Rows final : public Dataset {
 public:
  explicit Rows(Spec& spec) {
    const std::filesystem::path path = spec.get("path", "");
    const std::string domain = spec.get("domain", "");
    const int vocabulary = spec.get("vocabulary", 0, 0);
    train_ = spec.get("train", 0, 0);
    spec.done();
    if (path.empty()) {
      throw Error(Exit::usage, "the dataset rows was given no path")
          .hint("rows:path=FILE.h5, with inputs_embeds or image_features");
    }
    all_ = read_given_rows(GoldenFile(path));
    check_ids(path, vocabulary);
    if (train_ >= all_.sequences()) {
      throw Error(Exit::usage, concat("rows: train=", train_, " leaves none of ", all_.sequences(),
                                      " sequences to validate on"))
          .hint(concat("train=", all_.sequences() - 1, " or fewer"));
    }
    int highest = std::max(0, std::ranges::max(all_.token));
    for (const int id : all_.target)
      highest = std::max(highest, id);
    info_.spec = spec.resolved();
    info_.vocabulary = std::max(vocabulary, highest + 1);
    info_.bare_ids = true;
    info_.modalities = true;
    info_.domains = {domain.empty() ? path.stem().string() : domain};
    const Index trained = all_.start[std::size_t(train_)];
    info_.train_tokens = {trained};
    info_.valid_tokens = {all_.tokens() - trained};
    info_.valid_pieces = {all_.sequences() - train_};
    info_.content_hash = {hash_of(all_)};
  }
  const DatasetInfo& info() const override {
    return info_;
  }
  Piece train_piece(int, int tokens, Rng& rng) const override {
    if (train_ == 0) {
      throw Error(Exit::input, "none of the given rows are to be trained on")
          .hint("train=N: the first N sequences of the file, or split=valid");
    }
    return piece_of(rng.below(train_), tokens);
  }
  std::optional<Piece> valid_piece(int, int tokens, Index piece) const override {
    if (train_ + piece >= all_.sequences())
      return std::nullopt;
    return piece_of(train_ + piece, tokens);
  }

 private:
  Piece piece_of(Index sequence, int tokens) const {
    Batch one = sequences_of(all_, sequence, 1);
    if (one.tokens() > tokens) {
      throw Error(Exit::input, concat("a sequence of given rows has ", one.tokens(),
                                      " of them, and a piece ", tokens))
          .hint(concat("--length ", one.tokens()));
    }
    if (one.target.empty())
      one.target.assign(one.token.size(), -1);
    if (one.modality.empty())
      one.modality.assign(one.token.size(), modality::text);
    return {.token = std::move(one.token),
            .target = std::move(one.target),
            .valid = std::move(one.valid),
            .modality = std::move(one.modality),
            .given = std::move(one.given),
            .added = std::move(one.added),
            .position = std::move(one.position)};
  }
  void check_ids(const std::filesystem::path& path, int vocabulary) const {
    for (const auto* ids : {&all_.token, &all_.target}) {
      for (const int id : *ids) {
        if (vocabulary > 0 && id >= vocabulary) {
          throw Error(Exit::input, concat("'", path.native(), "' has the id ", id,
                                          ", and ids end at ", vocabulary - 1))
              .hint("rows and ids of the model that reads them");
        }
      }
    }
  }

  Batch all_;
  Index train_ = 0;  // sequences in front
  DatasetInfo info_;
};

}  // namespace

std::unique_ptr<Dataset> make_rows_dataset(Spec& spec, const Tokenizer&) {
  return std::make_unique<Rows>(spec);
}

}  // namespace moe
