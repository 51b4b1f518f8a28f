// Cases of what is done to heads around attention: turning, joining and splitting, clamping,
// centring, sinks.
#include <cmath>
#include <memory>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

double size_of(Index rows, Index cols) {
  return double(rows) * double(cols);
}

struct Turn {
  Index rows, heads;
  int head_dim, first, dims;  // dims: how many numbers of a head are turned
  Index from;
  bool interleaved = false;
  double scale = 1;
  std::string text(bool transposed) const {
    return concat("T=", rows, " heads=", heads, " d=", head_dim, " turned=", first, "+", dims,
                  " from=", from, interleaved ? " interleaved" : "",
                  scale != 1 ? concat(" scale=", scale) : "", transposed ? " transposed" : "");
  }
};
Case rope(const Turn& s, bool transposed) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 34);
    struct Data {
      Array<float> x;
      Array<int> position;
      std::vector<double> frequency;
    };
    const auto d =
        std::make_shared<Data>(Data{in.noise(s.rows, s.heads * s.head_dim),
                                    in.counted(s.from, s.rows), rotary_frequencies(s.dims, 10000)});
    const auto run = [d, s, transposed, &b] {
      b.rope(d->x.view(), {s.head_dim, s.first, s.interleaved, s.scale, d->frequency},
             d->position.view(), transposed);
    };
    return Trial{run, [d] {
                   return outputs({{"x", &d->x}});
                 }};
  };
  return {"rope", s.text(transposed), prepare, 1e-11, 0, 8 * size_of(s.rows, s.heads * s.head_dim)};
}

struct Data {
  Array<float> a, b, y, lse, dy, dsink;
};
Case heads(Index rows, int count, Index m, Index n, bool shared, bool split) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 61);
    const auto d = std::make_shared<Data>();
    const Index wide = shared ? n : count * n;
    if (split) {
      d->a = in.unset(rows, count * m);
      d->b = in.unset(rows, wide);
      d->y = in.noise(rows, count * (m + n));
    } else {
      d->a = in.noise(rows, count * m);
      d->b = in.noise(rows, wide);
      d->y = in.unset(rows, count * (m + n));
    }
    const auto run = [d, count, split, &b] {
      if (split)
        b.split_heads(d->y.view(), count, d->a.view(), d->b.view());
      else
        b.join_heads(d->a.view(), d->b.view(), count, d->y.view());
    };
    return Trial{run, [d] {
                   return outputs({{"a", &d->a}, {"b", &d->b}, {"y", &d->y}});
                 }};
  };
  return {split ? "split_heads" : "join_heads",
          concat("T=", rows, " heads=", count, " ", m, "+", n, shared ? " shared" : ""),
          prepare,
          shared ? 1e-12 : 0,
          0,
          8 * size_of(rows, count * (m + n))};
}

Case center(Index rows, Index cols) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 62);
    const auto d = std::make_shared<Data>();
    d->y = in.noise(rows, cols);
    return Trial{[d, &b] { b.center(d->y.view()); },
                 [d] {
                   return outputs({{"x", &d->y}});
                 }};
  };
  return {"center", concat("T=", rows, " n=", cols), prepare, 1e-11, 0, 8 * size_of(rows, cols)};
}
constexpr double cap = 1.5;  // of softcap

Case softcap(Index rows, Index cols, bool backward) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 65);
    const auto d = std::make_shared<Data>();
    d->y = in.noise(rows, cols, 2);
    d->dy = in.noise(rows, cols);
    if (backward)
      b.clamp(d->y.view(), cap);
    const auto run = [d, backward, &b] {
      if (backward)
        b.softcap_backward(d->y.view(), cap, d->dy.view());
      else
        b.softcap(d->y.view(), cap);
    };
    return Trial{run, [d] {
                   return outputs({{"y", &d->y}, {"dy", &d->dy}});
                 }};
  };
  return {backward ? "softcap_backward" : "softcap",
          concat("T=", rows, " n=", cols),
          prepare,
          1e-11,
          0,
          8 * size_of(rows, cols)};
}
Case clamp(Index rows, Index cols, bool backward) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 63);
    const auto d = std::make_shared<Data>();
    d->y = in.noise(rows, cols, 2);
    d->dy = in.noise(rows, cols);
    if (backward)
      b.clamp(d->y.view(), 0.75);
    const auto run = [d, backward, &b] {
      if (backward)
        b.clamp_backward(d->y.view(), 0.75, d->dy.view());
      else
        b.clamp(d->y.view(), 0.75);
    };
    return Trial{run, [d] {
                   return outputs({{"y", &d->y}, {"dy", &d->dy}});
                 }};
  };
  return {backward ? "clamp_backward" : "clamp",
          concat("T=", rows, " n=", cols),
          prepare,
          0,
          0,
          8 * size_of(rows, cols)};
}

Case sink(Index rows, Index count, Index dim, bool backward) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 64);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(1, count, 2);
    d->y = in.noise(rows, count * dim);
    d->lse = in.noise(rows, count, 2);
    d->dy = in.noise(rows, count * dim);
    d->dsink = in.noise(1, count);
    const auto run = [d, backward, &b] {
      if (backward) {
        b.attention_sink_backward(d->a.view(), d->y.view(), d->lse.view(), d->dy.view(),
                                  d->dsink.view());
      } else {
        b.attention_sink(d->a.view(), d->y.view(), d->lse.view());
      }
    };
    return Trial{run, [d] {
                   return outputs({{"out", &d->y}, {"lse", &d->lse}, {"dsink", &d->dsink}});
                 }};
  };
  return {backward ? "attention_sink_backward" : "attention_sink",
          concat("T=", rows, " heads=", count, " d=", dim),
          prepare,
          1e-10,
          0,
          8 * size_of(rows, count * dim)};
}

}  // namespace

std::vector<Case> head_cases(bool bench) {
  if (bench)
    return {rope({4096, 8, 64, 0, 64, 0}, false), heads(4096, 8, 128, 64, true, false)};
  std::vector<Case> all;
  for (const bool backward : {false, true}) {
    for (const Turn& t : std::vector<Turn>{{1, 1, 2, 0, 2, 0},
                                           {90, 3, 10, 0, 10, 300},
                                           {70, 2, 12, 0, 6, 5},
                                           {70, 2, 12, 8, 4, 5, true},
                                           {33, 3, 8, 0, 8, 0, true, 1.25},
                                           {9, 1, 6, 2, 4, 7, false, 0.5}}) {
      all.push_back(rope(t, backward));
    }
    for (const bool shared : {false, true}) {
      all.push_back(heads(1, 1, 1, 1, shared, backward));
      all.push_back(heads(70, 3, 5, 2, shared, backward));
    }
    for (const auto& [rows, cols] : std::vector<std::pair<Index, Index>>{{1, 1}, {170, 301}}) {
      all.push_back(clamp(rows, cols, backward));
      all.push_back(softcap(rows, cols, backward));
    }
    all.push_back(sink(1, 1, 1, backward));
    all.push_back(sink(90, 3, 7, backward));
  }
  all.push_back(center(1, 7));
  all.push_back(center(300, 129));
  return all;
}

}  // namespace moe::check
