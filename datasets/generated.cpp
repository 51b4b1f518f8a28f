// What the datasets that are made up share: pieces, the stored validation text, drawing from
// weights.
#include "datasets/generated.h"

namespace moe {

void Generated::open(Spec& spec, int vocabulary) {
  const int valid = spec.get("valid", 65536, 1);
  spec.done();
  info_.spec = spec.resolved();
  info_.vocabulary = vocabulary;
  info_.domains = {spec.name()};
  info_.train_tokens = {kEndless};
  info_.valid_tokens = {valid};
}

void Generated::fill(std::uint64_t seed) {
  Rng rng = Rng(seed).stream(0x76616c6964);  // a stream that no training piece draws from
  valid_.add(generate(Split::valid, info_.valid_tokens[0], rng));
}

Piece Generated::train_piece(int, int tokens, Rng& rng) const {
  TokenIds ids = generate(Split::train, tokens + 1, rng);
  std::vector<int> target(ids.begin() + 1, ids.end());
  ids.pop_back();
  return {std::move(ids), std::move(target)};
}

std::optional<Piece> Generated::valid_piece(int, int tokens, Index piece) const {
  return valid_.consecutive(tokens, piece);
}

int draw(const std::vector<double>& cumulative, Rng& rng) {
  const double at = rng.uniform() * cumulative.back();
  return int(std::upper_bound(cumulative.begin(), cumulative.end() - 1, at) - cumulative.begin());
}

}  // namespace moe
