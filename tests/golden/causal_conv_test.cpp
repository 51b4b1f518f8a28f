// The causal convolution against files of expected values, forwards and backwards, where they are.
// The gradient by carried rows is that of the same rows put before their sequence, since backwards
// knows only sequences that start from 0.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "lib/backend/backend.h"
#include "lib/trace/golden.h"

using namespace moe;

namespace {

std::filesystem::path shared_mixers() {
  const char* set = std::getenv("MOE_SHARED");
  const std::filesystem::path root =
      set ? std::filesystem::path(set) : std::filesystem::path(MOE_SOURCE_DIR) / ".." / "shared";
  return root / "golden" / "mixers";
}

using Numbers = Matrix<double>;

struct Golden {
  GoldenFile file;
  Index sequences, length, hidden, taps;
  bool silu_after, carried;

  explicit Golden(const std::filesystem::path& path)
      : file(path),
        sequences(file.integer("batch")),
        length(file.integer("length")),
        hidden(file.integer("hidden_size")),
        taps(file.integer("kernel")),
        silu_after(file.text("activation") == "silu"),
        carried(file.integer("carried_state") == 1) {}

  // All but the last dimension are rows.
  Numbers read(const std::string& name) const {
    const GoldenArray<double> a = file.reals(name);
    Numbers m(a.size() / a.dims.back(), a.dims.back());
    std::ranges::copy(a.values, m.flat().begin());
    return m;
  }
  Numbers weight(const std::string& name) const {  // (H,K), whatever its dimensions
    const GoldenArray<double> a = file.reals(name);
    Numbers m(hidden, taps);
    REQUIRE(a.size() == m.size());
    std::ranges::copy(a.values, m.flat().begin());
    return m;
  }
  Numbers bias(const std::string& name) const {
    Numbers m(file.integer("bias"), hidden);
    if (!m.empty())
      std::ranges::copy(file.reals(name).values, m.flat().begin());
    return m;
  }
  std::vector<Index> starts(Index rows) const {
    std::vector<Index> out;
    for (Index q = 0; q <= sequences; ++q)
      out.push_back(q * rows);
    return out;
  }
};

void close(const Numbers& got, const Numbers& want) {
  REQUIRE(got.size() == want.size());
  double largest = 1;
  for (const double v : want.flat())
    largest = std::max(largest, std::abs(v));
  for (Index i = 0; i < got.size(); ++i)
    CHECK(std::abs(got.data()[i] - want.data()[i]) <= 1e-10 * largest);
}

// Rows of each sequence of `first`, then those of `then`.
Numbers joined(const Numbers& first, const Numbers& then, Index sequences) {
  const Index a = first.rows() / sequences;
  const Index b = then.rows() / sequences;
  Numbers m(first.rows() + then.rows(), then.cols());
  for (Index q = 0; q < sequences; ++q) {
    std::ranges::copy(first.view().block(q, a).flat(), m.row(q * (a + b)).begin());
    std::ranges::copy(then.view().block(q, b).flat(), m.row(q * (a + b) + a).begin());
  }
  return m;
}

}  // namespace

TEST_CASE("causal convolutions agree with the shared golden files") {
  const auto path = shared_mixers() / GENERATE("causal_conv1d.h5", "causal_conv1d_plain.h5");
  if (!std::filesystem::exists(path)) {
    WARN("no shared golden files here");
    return;
  }
  const Golden g(path);
  const auto b = make_reference<double>();
  const Numbers x = g.read("input/x");
  const Numbers w = g.weight("param/weight");
  const Numbers bias = g.bias("param/bias");
  const Numbers before =
      g.carried ? g.read("input/state/conv") : Numbers(g.sequences * (g.taps - 1), g.hidden);

  Numbers y(x.rows(), g.hidden);
  b->causal_conv(x.view(), w.view(), bias.view(), g.starts(g.length), before.view(), y.view());
  Numbers dy = g.read("input/grad_y");
  Numbers after = y;
  for (Index i = 0; g.silu_after && i < y.size(); ++i) {
    const Slope<double> s = silu(y.data()[i]);
    after.data()[i] = s.value;
    dy.data()[i] *= s.slope;
  }
  close(after, g.read("expected/y"));

  // The carried rows come first, as rows whose outputs nobody reads.
  const Numbers rows = joined(before, x, g.sequences);
  const Numbers gradient = joined(Numbers(before.rows(), g.hidden), dy, g.sequences);
  Numbers dx(rows.rows(), g.hidden);
  Numbers dw(g.hidden, g.taps);
  Numbers dbias(bias.rows(), g.hidden);
  b->causal_conv_backward(gradient.view(), rows.view(), w.view(), g.starts(g.length + g.taps - 1),
                          dx.view(), dw.view(), dbias.view());
  close(dw, g.weight("expected/grad/weight"));
  if (!bias.empty())
    close(dbias, g.bias("expected/grad/bias"));
  Numbers want = joined(Numbers(before.rows(), g.hidden), g.read("expected/grad/x"), g.sequences);
  if (g.carried) {
    // The loss also weighs the final rows, which are the last of x where x is long enough.
    REQUIRE(g.length >= g.taps - 1);
    const Numbers of_final = g.read("input/grad_state/conv");
    want = joined(g.read("expected/grad/state/conv"), g.read("expected/grad/x"), g.sequences);
    const Index kept = g.taps - 1;
    for (Index q = 0; q < g.sequences; ++q) {
      const View<double> last = dx.view().block(q, g.length + kept).slice(g.length, kept);
      for (Index i = 0; i < last.size(); ++i)
        last.data[i] += of_final.view().block(q, kept).data[i];
    }
  } else {
    for (Index q = 0; q < g.sequences; ++q) {
      for (double& v : dx.view().block(q, g.length + g.taps - 1).slice(0, g.taps - 1).flat())
        v = 0;  // nothing was before
    }
  }
  close(dx, want);
}
