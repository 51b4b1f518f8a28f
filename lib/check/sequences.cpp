// Cases of what runs along sequences: causal convolutions, of sequences shorter than their filter
// too, with and without rows carried over from an earlier call.
#include <memory>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

struct Conv {
  std::vector<Index> length;  // of each sequence
  Index hidden = 1, taps = 1;
  bool bias = false, before = false;

  std::vector<Index> start() const {
    std::vector<Index> out = {0};
    for (const Index n : length)
      out.push_back(out.back() + n);
    return out;
  }
  Index carried() const {
    return before ? Index(length.size()) * (taps - 1) : 0;
  }
  std::string text() const {
    return concat("T=", start().back(), " H=", hidden, " K=", taps, " sequences=", length.size(),
                  bias ? " bias" : "", before ? " before" : "");
  }
  double bytes() const {
    return 8.0 * double(start().back()) * double(hidden);
  }
};

Case causal_conv(const Conv& s) {
  const auto prepare = [s](Backend<float>& b) {
    Inputs in(b, 71);
    struct Data {
      std::vector<Index> start;
      Array<float> x, w, bias, before, y;
    };
    const Index rows = s.start().back();
    const auto d = std::make_shared<Data>();
    d->start = s.start();
    d->x = in.noise(rows, s.hidden);
    d->w = in.noise(s.hidden, s.taps);
    d->bias = in.noise(s.bias ? 1 : 0, s.hidden);
    d->before = in.noise(s.carried(), s.hidden);
    d->y = in.unset(rows, s.hidden);
    const auto run = [d, &b] {
      b.causal_conv(d->x.view(), d->w.view(), d->bias.view(), d->start, d->before.view(),
                    d->y.view());
    };
    return Trial{run, [d] {
                   return outputs({{"y", &d->y}});
                 }};
  };
  return {"causal_conv", s.text(), prepare, 1e-11, 0, s.bytes()};
}

Case causal_conv_backward(const Conv& s) {
  const auto prepare = [s](Backend<float>& b) {
    Inputs in(b, 72);
    struct Data {
      std::vector<Index> start;
      Array<float> dy, x, w, dx, dw, dbias;
    };
    const Index rows = s.start().back();
    const auto d = std::make_shared<Data>();
    d->start = s.start();
    d->dy = in.noise(rows, s.hidden);
    d->x = in.noise(rows, s.hidden);
    d->w = in.noise(s.hidden, s.taps);
    d->dx = in.unset(rows, s.hidden);
    d->dw = in.noise(s.hidden, s.taps);
    d->dbias = in.noise(s.bias ? 1 : 0, s.hidden);
    const auto run = [d, &b] {
      b.causal_conv_backward(d->dy.view(), d->x.view(), d->w.view(), d->start, d->dx.view(),
                             d->dw.view(), d->dbias.view());
    };
    return Trial{run, [d] {
                   return outputs({{"dx", &d->dx}, {"dw", &d->dw}, {"dbias", &d->dbias}});
                 }};
  };
  return {"causal_conv_backward", s.text(), prepare, 1e-11, 0, 2 * s.bytes()};
}

}  // namespace

std::vector<Case> sequence_cases(bool bench) {
  if (bench) {
    const Conv s{{2048, 2048}, 512, 4};
    return {causal_conv(s), causal_conv_backward(s)};
  }
  std::vector<Case> all;
  for (const Conv& s : std::vector<Conv>{{{1}, 1, 1},
                                         {{1}, 1, 1, true, true},
                                         {{9}, 5, 3},
                                         {{1, 0, 2, 40}, 17, 4, true},
                                         {{7, 1, 30}, 33, 4, true, true},
                                         {{2, 0, 3}, 6, 5, false, true}}) {
    all.push_back(causal_conv(s));
    if (!s.before)
      all.push_back(causal_conv_backward(s));
  }
  return all;
}

}  // namespace moe::check
