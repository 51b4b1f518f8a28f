// Cases of attention with a bias by distance: decoders, encoders with padding, attention from one
// to the other, keys from an earlier call.
#include <cmath>
#include <memory>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

enum class Sees { before, all };

struct Shape {
  int heads, kv_heads, head_dim;
  Sees sees;
  std::vector<Index> queries, keys;  // of each sequence
  bool bias = true;
  Index padding = 0;  // keys at the end of every sequence
  double scale = 1;
  Index span = 0;  // rows that see each other, from the second of a sequence on; 0 = none do

  std::string text() const {
    std::string s = concat("heads=", heads, "/", kv_heads, " d=", head_dim,
                           sees == Sees::all ? " all" : " causal", bias ? " bias" : "",
                           padding ? concat(" padding=", padding) : "",
                           span ? concat(" spans=", span) : "", " sequences=");
    for (std::size_t i = 0; i < queries.size(); ++i)
      s += concat(i ? "," : "", queries[i], "x", keys[i]);
    return s;
  }
  double flops() const {
    double pairs = 0;
    for (std::size_t i = 0; i < queries.size(); ++i)
      pairs += double(queries[i]) * double(keys[i]);
    return 4.0 * pairs * heads * head_dim;
  }
};

struct Data {
  std::vector<Index> query_start{0}, key_start{0};
  std::vector<std::uint8_t> valid;
  std::vector<Index> last;
  AttentionShape shape;
  KeyRule rule;
  Array<float> q, k, v, bias, out, lse, dout, dq, dk, dv, dbias;
};

// Sequences, padding and rule; returns the most keys of a sequence.
Index lay_out(const Shape& s, Data* d) {
  Index reach = 1;
  for (std::size_t i = 0; i < s.queries.size(); ++i) {
    d->query_start.push_back(d->query_start.back() + s.queries[i]);
    d->key_start.push_back(d->key_start.back() + s.keys[i]);
    for (Index j = 0; s.padding > 0 && j < s.keys[i]; ++j)
      d->valid.push_back(j + s.padding < s.keys[i]);
    for (Index j = s.keys[i] - s.queries[i]; s.span > 0 && j < s.keys[i]; ++j) {
      const Index behind = j == 0 ? 1 : (j - 1) / s.span * s.span + s.span + 1;
      d->last.push_back(std::min(behind, s.keys[i]));
    }
    reach = std::max(reach, s.keys[i]);
  }
  d->shape = {s.heads, s.kv_heads, s.head_dim, 0, s.scale, d->query_start, d->key_start};
  d->rule = {s.sees == Sees::before, d->valid, d->last};
  return reach;
}

std::shared_ptr<Data> data_of(Backend<float>& b, const Shape& s) {
  Inputs in(b, 52);
  auto d = std::make_shared<Data>();
  const Index reach = lay_out(s, d.get());
  const Index queries = d->query_start.back();
  const Index keys = d->key_start.back();
  const Index q = Index(s.heads) * s.head_dim;
  const Index kv = Index(s.kv_heads) * s.head_dim;
  d->q = in.noise(queries, q);
  d->k = in.noise(keys, kv);
  d->v = in.noise(keys, kv);
  d->dout = in.noise(queries, q);
  d->out = in.unset(queries, q);
  d->lse = in.unset(queries, s.heads);
  d->dq = in.unset(queries, q);
  d->dk = in.unset(keys, kv);
  d->dv = in.unset(keys, kv);
  if (s.bias) {
    d->bias = in.noise(s.heads, 2 * reach - 1);
    d->dbias = in.noise(s.heads, 2 * reach - 1);  // added to
  }
  return d;
}

void forward(Backend<float>& b, Data& d) {
  b.biased_attention(d.q.view(), d.k.view(), d.v.view(), d.bias.view(), d.shape, d.rule,
                     d.out.view(), d.lse.view());
}

Case forward_case(const Shape& s) {
  const auto prepare = [s](Backend<float>& b) {
    const auto d = data_of(b, s);
    return Trial{[d, &b] { forward(b, *d); },
                 [d] {
                   return outputs({{"out", &d->out}, {"lse", &d->lse}});
                 }};
  };
  return {"biased_attention", s.text(), prepare, 1e-10, s.flops(), 0};
}

Case backward_case(const Shape& s) {
  const auto prepare = [s](Backend<float>& b) {
    const auto d = data_of(b, s);
    forward(b, *d);
    const auto run = [d, &b] {
      b.biased_attention_backward(d->q.view(), d->k.view(), d->v.view(), d->bias.view(),
                                  d->out.view(), d->lse.view(), d->dout.view(), d->shape, d->rule,
                                  d->dq.view(), d->dk.view(), d->dv.view(), d->dbias.view());
    };
    return Trial{run, [d, s] {
                   auto all = outputs({{"dq", &d->dq}, {"dk", &d->dk}, {"dv", &d->dv}});
                   if (s.bias)
                     all.push_back({"dbias", d->dbias.to_host()});
                   return all;
                 }};
  };
  return {"biased_attention_backward", s.text(), prepare, 1e-10, 2.5 * s.flops(), 0};
}

std::vector<Shape> large_shapes() {
  return {{8, 8, 64, Sees::all, {512, 512, 512, 512}, {512, 512, 512, 512}},
          {4, 4, 32, Sees::before, std::vector<Index>(16, 64), std::vector<Index>(16, 64)},
          {4, 4, 32, Sees::all, std::vector<Index>(16, 64), std::vector<Index>(16, 256), false}};
}

}  // namespace

std::vector<Case> biased_attention_cases(bool bench) {
  const std::vector<Shape> awkward = {
      {1, 1, 1, Sees::before, {1}, {1}},
      {2, 1, 6, Sees::before, {5, 1, 9}, {5, 1, 9}},
      {3, 3, 5, Sees::before, {1, 2}, {21, 72}},
      {4, 2, 8, Sees::all, {70, 3}, {70, 3}, true, 2, 0.25},
      {2, 2, 10, Sees::all, {150}, {150}},
      {4, 1, 16, Sees::all, {7, 66, 1}, {90, 4, 2}, false, 1},
      {2, 2, 4, Sees::before, {66}, {66}, false, 0, 0.5},
      {4, 2, 6, Sees::before, {70, 2, 9}, {70, 2, 9}, true, 0, 1, 7},
      {2, 1, 8, Sees::before, {5, 3}, {90, 12}, false, 1, 0.5, 4}};
  std::vector<Case> all;
  for (const Shape& s : bench ? large_shapes() : awkward) {
    all.push_back(forward_case(s));
    all.push_back(backward_case(s));
  }
  return all;
}

}  // namespace moe::check
