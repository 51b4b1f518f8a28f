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

void Generated::train_piece(int, int tokens, Rng& rng, std::vector<int>& token,
                            std::vector<int>& target) const {
  token = generate(Split::train, tokens + 1, rng);
  target.assign(token.begin() + 1, token.end());
  token.pop_back();
}

bool Generated::valid_piece(int, int tokens, Index piece, std::vector<int>& token,
                            std::vector<int>& target) const {
  return valid_.consecutive(tokens, piece, token, target);
}

int draw(const std::vector<double>& cumulative, Rng& rng) {
  const double at = rng.uniform() * cumulative.back();
  return int(std::upper_bound(cumulative.begin(), cumulative.end() - 1, at) - cumulative.begin());
}

}  // namespace moe
