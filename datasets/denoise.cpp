#include "datasets/denoise.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/shuffle.h"

namespace moe {
namespace {

// `sum` as `parts` numbers of at least 1, every way as likely.
std::vector<Index> segments(Index sum, Index parts, Rng& rng) {
  std::vector<Index> cut(std::size_t(sum) - 1);
  std::iota(cut.begin(), cut.end(), Index{1});
  for (Index i = 0; i + 1 < parts; ++i)
    draw_to(cut, std::size_t(i), rng);
  cut.resize(std::size_t(parts) - 1);
  std::ranges::sort(cut);
  cut.push_back(sum);
  std::vector<Index> out;
  for (std::size_t i = 0; i < cut.size(); ++i)
    out.push_back(cut[i] - (i ? cut[i - 1] : 0));
  return out;
}

TokenIds ids_of(const Piece& text) {
  const TokenIds& all = text.token;
  TokenIds out;
  for (std::size_t t = 0; t < all.size(); ++t) {
    if (text.valid.empty() || text.valid[t])
      out.push_back(all[t]);
  }
  return out;
}

}  // namespace

Denoise::Denoise(const std::string& text) {
  Spec spec(text);
  if (spec.name() != "denoise")
    no_such("task", spec.name(), {"denoise"});
  density_ = spec.get("density", 0.15, 0.0);
  span_ = spec.get("span", 3.0, 1.0);
  sentinels_ = spec.get("sentinels", 32, 1);
  spec.done();
  if (!(density_ > 0 && density_ < 1)) {
    throw Error(Exit::usage, concat("denoise: density=", density_, " takes out ",
                                    density_ <= 0 ? "nothing" : "everything"))
        .hint("density=0.15");
  }
  resolved_ = spec.resolved();
}

Piece Denoise::apply(const Piece& text, const TokenIds& sentinels, int start, Rng& rng) const {
  const TokenIds ids = ids_of(text);
  const auto length = Index(ids.size());
  if (length < 2) {
    Piece out = shifted({}, start, 1);
    out.source = ids;
    return out;
  }
  const Index noise = std::clamp<Index>(std::llround(double(length) * density_), 1, length - 1);
  const Index spans = std::min({std::max<Index>(1, std::llround(double(noise) / span_)), noise,
                                length - noise, Index(sentinels_)});
  const std::vector<Index> kept = segments(length - noise, spans, rng);
  const std::vector<Index> taken = segments(noise, spans, rng);
  TokenIds source;
  TokenIds target;
  auto at = ids.begin();
  for (std::size_t s = 0; s < kept.size(); ++s) {
    const int sentinel = sentinels.at(s);
    source.insert(source.end(), at, at + kept[s]);
    source.push_back(sentinel);
    at += kept[s];
    target.push_back(sentinel);
    target.insert(target.end(), at, at + taken[s]);
    at += taken[s];
  }
  Piece out = shifted(target, start, target.size() + 1);
  out.source = std::move(source);
  return out;
}

Piece shifted(const TokenIds& y, int start, std::size_t most) {
  TokenIds content{start};
  content.insert(content.end(), y.begin(), y.end());
  std::vector<int> target(y.begin(), y.end());
  target.push_back(start);
  content.resize(std::min(most, content.size()));
  target.resize(content.size());
  return {.token = std::move(content), .target = std::move(target)};
}

}  // namespace moe
