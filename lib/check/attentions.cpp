// Cases of attention forwards and backwards: several sequences, grouped heads, windows, chunks,
// narrow values, keys from an earlier call.
#include <cmath>
#include <memory>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

struct Shape {
  int heads, kv_heads, head_dim, window;
  std::vector<Index> queries, past;  // of each sequence; keys = past + queries
  int chunk = 0, value_dim = 0;
  int values() const {
    return value_dim > 0 ? value_dim : head_dim;
  }
  std::string text() const {
    std::string s = concat("heads=", heads, "/", kv_heads, " d=", head_dim, " window=", window,
                           chunk ? concat(" chunk=", chunk) : "",
                           value_dim ? concat(" value=", value_dim) : "", " sequences=");
    for (std::size_t i = 0; i < queries.size(); ++i)
      s += concat(i ? "," : "", past[i], "+", queries[i]);
    return s;
  }
  double flops() const {  // of scores and outputs, what causality hides not counted
    double pairs = 0;
    for (std::size_t i = 0; i < queries.size(); ++i) {
      for (Index j = 0; j < queries[i]; ++j)
        pairs += double(window > 0 ? std::min<Index>(window, past[i] + j + 1) : past[i] + j + 1);
    }
    return 4.0 * pairs * heads * head_dim;
  }
};

struct Data {
  std::vector<Index> query_start{0}, key_start{0};
  AttentionShape shape;
  Array<float> q, k, v, out, lse, dout, dq, dk, dv;
};
std::shared_ptr<Data> data_of(Backend<float>& b, const Shape& s) {
  Inputs in(b, 51);
  auto d = std::make_shared<Data>();
  for (std::size_t i = 0; i < s.queries.size(); ++i) {
    d->query_start.push_back(d->query_start.back() + s.queries[i]);
    d->key_start.push_back(d->key_start.back() + s.queries[i] + s.past[i]);
  }
  d->shape = {
      s.heads,        s.kv_heads,   s.head_dim, s.window,   1 / std::sqrt(double(s.head_dim)),
      d->query_start, d->key_start, s.chunk,    s.value_dim};
  const Index queries = d->query_start.back();
  const Index keys = d->key_start.back();
  const Index q = s.heads * s.head_dim;
  const Index kv = s.kv_heads * s.head_dim;
  const Index o = s.heads * s.values();
  const Index w = s.kv_heads * s.values();
  d->q = in.noise(queries, q, 2);
  d->k = in.noise(keys, kv);
  d->v = in.noise(keys, w);
  d->dout = in.noise(queries, o);
  d->out = in.unset(queries, o);
  d->lse = in.unset(queries, s.heads);
  d->dq = in.unset(queries, q);
  d->dk = in.unset(keys, kv);
  d->dv = in.unset(keys, w);
  return d;
}
void forward(Backend<float>& b, Data& d) {
  b.attention(d.q.view(), d.k.view(), d.v.view(), d.shape, d.out.view(), d.lse.view());
}

Case attention(const Shape& s) {
  const auto prepare = [s](Backend<float>& b) {
    const auto d = data_of(b, s);
    return Trial{[d, &b] { forward(b, *d); },
                 [d] {
                   return outputs({{"out", &d->out}, {"lse", &d->lse}});
                 }};
  };
  return {"attention", s.text(), prepare, 1e-10, s.flops(), 0};
}
Case attention_backward(const Shape& s) {
  const auto prepare = [s](Backend<float>& b) {
    const auto d = data_of(b, s);
    forward(b, *d);
    const auto run = [d, &b] {
      b.attention_backward(d->q.view(), d->k.view(), d->v.view(), d->out.view(), d->lse.view(),
                           d->dout.view(), d->shape, d->dq.view(), d->dk.view(), d->dv.view());
    };
    return Trial{run, [d] {
                   return outputs({{"dq", &d->dq}, {"dk", &d->dk}, {"dv", &d->dv}});
                 }};
  };
  return {"attention_backward", s.text(), prepare, 1e-10, 2.5 * s.flops(), 0};
}

}  // namespace

std::vector<Case> attention_cases(bool bench) {
  const std::vector<Shape> awkward = {{1, 1, 1, 0, {1}, {0}},
                                      {2, 1, 6, 0, {5, 1, 9}, {0, 0, 0}},
                                      {4, 2, 8, 3, {7, 70}, {0, 0}},
                                      {3, 3, 5, 0, {1, 2}, {20, 70}},
                                      {2, 2, 10, 16, {150}, {33}},
                                      {4, 1, 16, 0, {130, 64}, {0, 0}},
                                      {2, 1, 6, 0, {70, 3}, {0, 11}, 8, 0},
                                      {2, 2, 10, 0, {70, 5}, {0, 9}, 0, 4},
                                      {2, 1, 4, 0, {9}, {0}, 0, 7}};
  const std::vector<Shape> large = {
      {8, 4, 64, 0, {512, 512, 512, 512}, {0, 0, 0, 0}},
      {4, 2, 32, 0, std::vector<Index>(16, 256), std::vector<Index>(16, 0)},
      {8, 8, 64, 0, {2048}, {0}},
      {8, 4, 64, 0, {1, 1}, {2047, 2047}}};
  std::vector<Case> all;
  for (const Shape& s : bench ? large : awkward) {
    all.push_back(attention(s));
    all.push_back(attention_backward(s));
  }
  return all;
}

}  // namespace moe::check
