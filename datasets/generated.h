// Text that is made up: endless for training, a stored stretch for validation. What is planted in
// it depends on the spec alone; the run's seed only says which part of the endless text is read.
#pragma once
#include "datasets/stream.h"

namespace moe {

class Generated : public Dataset {
 public:
  const DatasetInfo& info() const override {
    return info_;
  }
  Piece train_piece(int domain, int tokens, Rng&) const override;
  std::optional<Piece> valid_piece(int domain, int tokens, Index piece) const override;

 protected:
  // The derived maker: options first, then open(), which reads `valid=` (tokens of the valid split)
  // and closes the spec, then fill().
  void open(Spec&, int vocabulary);
  // writes the validation text, once generate() can work
  void fill(std::uint64_t seed);
  virtual std::vector<int> generate(Split, Index count, Rng&) const = 0;  // `count` consecutive ids

  DatasetInfo info_;

 private:
  TokenStream valid_;
};

// An index drawn from cumulative weights (the last is the sum).
int draw(const std::vector<double>& cumulative, Rng&);

}  // namespace moe
