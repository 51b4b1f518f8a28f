#include "analysis/metric/impossible.h"

#include "lib/core/text.h"

namespace moe {
namespace {

// Up to 64 experts are a word of bits; more are compared pair by pair.
bool names_twice(std::span<const int> ids, bool few) {
  if (few) {
    std::uint64_t seen = 0;
    bool twice = false;
    for (const int id : ids) {
      const std::uint64_t bit = std::uint64_t{1} << id;
      twice |= (seen & bit) != 0;
      seen |= bit;
    }
    return twice;
  }
  bool twice = false;
  for (std::size_t i = 1; i < ids.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j)
      twice |= ids[i] == ids[j];
  }
  return twice;
}

}  // namespace

std::vector<std::uint8_t> repeated_choices(const LayerChoices& choices, Index tokens, int experts) {
  std::vector<std::uint8_t> out;
  for (Index t = 0; t < tokens; ++t) {
    if (!names_twice(choices.of(t), experts <= 64))
      continue;
    out.resize(std::size_t(tokens), 0);
    out[std::size_t(t)] = 1;
  }
  return out;
}

std::string ImpossibleRows::sentence(std::uint64_t tokens) const {
  return concat(rows, " of ", tokens,
                " tokens have one expert in several slots of a layer, which no top-k gives (first: "
                "row ",
                first,
                "): they are left out of every figure. Zeros in the place of routing that was not "
                "recorded look like this");
}

}  // namespace moe
