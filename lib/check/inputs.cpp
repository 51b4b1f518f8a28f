#include "lib/check/inputs.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "lib/core/rng.h"
#include "lib/core/text.h"

namespace moe::check {

std::string activation_text(Activation a) {
  return concat(moe::name_of(a), a.limited() ? concat(" to ", a.limit) : "");
}

Array<float> Inputs::noise(Index rows, Index cols, double scale) {
  Matrix<float> m(rows, cols);
  for (float& v : m.flat())
    v = float(rng_.normal() * scale);
  return {backend_, std::as_const(m).view()};
}
Array<int> Inputs::ids(Index rows, Index cols, int below, double empty) {
  Matrix<int> m(rows, cols);
  for (int& v : m.flat()) {
    const bool hole = rng_.uniform() < empty;
    v = int(rng_.below(below));
    if (hole)
      v = -1;
  }
  return {backend_, std::as_const(m).view()};
}
Array<int> Inputs::counted(Index first, Index count) {
  Matrix<int> m(1, count);
  std::iota(m.flat().begin(), m.flat().end(), int(first));
  return {backend_, std::as_const(m).view()};
}

Array<float> Inputs::unset(Index rows, Index cols) {
  const Matrix<float> m(rows, cols, std::numeric_limits<float>::quiet_NaN());
  return {backend_, m.view()};
}

std::string_view name_of(Spread s) {
  constexpr std::string_view names[] = {"even", "skewed", "one", "holes", "none"};
  return names[std::size_t(s)];
}
std::string Sizes::text() const {
  return concat("T=", tokens, " H=", hidden, " I=", width, " E=", experts, " K=", choices, " ",
                name_of(spread));
}
Index Sizes::slots() const {
  return spread == Spread::none ? 0 : tokens * choices;
}

namespace {
// An expert that the token does not have yet; -1 where it has them all.
int fresh(std::span<const int> chosen, int experts, Rng& rng) {
  for (int tries = 0; tries < 64; ++tries) {
    if (const int e = int(rng.below(experts)); std::ranges::find(chosen, e) == chosen.end())
      return e;
  }
  return -1;
}
}  // namespace

Matrix<int> kept_choices(const Sizes& s, Rng& rng) {
  Matrix<int> kept(s.tokens, s.choices, -1);
  for (Index t = 0; t < s.tokens && s.spread != Spread::none; ++t) {
    for (Index k = 0; k < s.choices; ++k) {
      int e = fresh(kept.row(t).first(std::size_t(k)), s.experts, rng);
      const bool now = rng.uniform() < 0.5;
      if (s.spread == Spread::one)
        e = k == 0 ? std::min(1, s.experts - 1) : -1;
      if (s.spread == Spread::skewed && k == 0 && now)
        e = 0;
      if (s.spread == Spread::holes && (e == s.experts / 2 || (now && t % 3 == 0)))
        e = -1;
      kept(t, k) = e;
    }
  }
  return kept;
}
Plan plan_of(Inputs& in, const Sizes& s) {
  const Matrix<int> kept = kept_choices(s, in.rng());
  const Array<int> on_device(in.backend(), kept.view());
  return in.backend().plan(on_device.view(), s.experts);
}

}  // namespace moe::check
