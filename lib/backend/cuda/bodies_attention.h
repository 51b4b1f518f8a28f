// Bodies of causal attention. Forward: a group takes one query and head and goes over its keys, a
// lane a key, with a running maximum. Backward: the same for the gradient of the query; then a
// group a key for its own gradients, over the queries that see it. Every number is written by one
// group in a fixed order: no atomics, nothing of size queries x keys.
#pragma once
#include "lib/backend/cuda/bodies_rows.h"

namespace moe::gpu {

struct Heads {
  Index heads, kv_heads, d, n;  // d: columns of queries and keys, n: of values and outputs
  float scale;
  MOE_HD Index kv_of(Index h) const {
    return h / (heads / kv_heads);
  }
  // where the head's numbers start
  MOE_HD Index query(Index t, Index h) const {
    return (t * heads + h) * d;
  }
  MOE_HD Index key(Index j, Index kv) const {
    return (j * kv_heads + kv) * d;
  }
  MOE_HD Index output(Index t, Index h) const {
    return (t * heads + h) * n;
  }
  MOE_HD Index value(Index j, Index kv) const {
    return (j * kv_heads + kv) * n;
  }
  MOE_HD float dot(const float* a, const float* b, Index size) const {
    float sum = 0;
    for (Index i = 0; i < size; ++i)
      sum += a[i] * b[i];
    return sum;
  }
};

struct Attend {  // r: query and head
  const float *q, *k, *v;
  const int* range;  // (2, Tq): first key row, one past the last
  float *out, *lse;
  Heads a;
  Index queries;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const Index t = r / a.heads;
    const Index h = r % a.heads;
    const Index kv = a.kv_of(h);
    const Index first = range[t];
    const Index last = range[queries + t];
    const float* mine = q + a.query(t, h);
    float* result = out + a.output(t, h);
    float top = -std::numeric_limits<float>::infinity();
    float total = 0;
    for (Index i = g.lane(); i < a.n; i += G::width)
      result[i] = 0;
    for (Index j0 = first; j0 < last; j0 += G::width) {
      const Index j = j0 + g.lane();
      const Index count = last - j0 < G::width ? last - j0 : G::width;
      const float s = j < last ? a.scale * a.dot(mine, k + a.key(j, kv), a.d)
                               : -std::numeric_limits<float>::infinity();
      const float best = g.max(s);
      const float next = top < best ? best : top;
      const float keep = std::exp(top - next);
      const float p = j < last ? std::exp(s - next) : 0.0f;
      total = total * keep + g.sum(p);
      top = next;
      add_values(g, p, keep, j0, count, kv, result);
    }
    for (Index i = g.lane(); i < a.n; i += G::width)
      result[i] /= total;
    if (g.lane() == 0)
      lse[r] = top + std::log(total);
  }
  // result = keep result + the sum of p of lane n times the value of key j0 + n; all lanes go
  // through, for p comes from all of them
  template <class G>
  MOE_HD void add_values(const G& g, float p, float keep, Index j0, Index count, Index kv,
                         float* result) const {
    for (Index i0 = 0; i0 < a.n; i0 += G::width) {
      const Index i = i0 + g.lane();
      float sum = i < a.n ? result[i] * keep : 0;
      for (Index n = 0; n < count; ++n) {
        const float pn = g.from(p, int(n));
        if (i < a.n)
          sum += pn * v[a.value(j0 + n, kv) + i];
      }
      if (i < a.n)
        result[i] = sum;
    }
  }
};

struct AttendDelta {  // r: query and head; out . dout
  const float *out, *dout;
  float* delta;
  Index d;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const double sum = dot(g, out + r * d, dout + r * d, d);
    if (g.lane() == 0)
      delta[r] = float(sum);
  }
};

struct AttendQueries {  // r: query and head; dq
  const float *q, *k, *v, *lse, *dout, *delta;
  const int* range;  // as in Attend
  float* dq;
  Heads a;
  Index queries;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const Index t = r / a.heads;
    const Index h = r % a.heads;
    const Index kv = a.kv_of(h);
    const Index first = range[t];
    const Index last = range[queries + t];
    const float* mine = q + a.query(t, h);
    const float* arriving = dout + a.output(t, h);
    float* result = dq + a.query(t, h);
    for (Index i = g.lane(); i < a.d; i += G::width)
      result[i] = 0;
    for (Index j0 = first; j0 < last; j0 += G::width) {
      const Index j = j0 + g.lane();
      const Index count = last - j0 < G::width ? last - j0 : G::width;
      float ds = 0;
      if (j < last) {
        ds = std::exp(a.scale * a.dot(mine, k + a.key(j, kv), a.d) - lse[r]) *
             (a.dot(arriving, v + a.value(j, kv), a.n) - delta[r]) * a.scale;
      }
      for (Index i0 = 0; i0 < a.d; i0 += G::width) {
        const Index i = i0 + g.lane();
        float sum = i < a.d ? result[i] : 0;
        for (Index n = 0; n < count; ++n) {
          const float dn = g.from(ds, int(n));
          if (i < a.d)
            sum += dn * k[a.key(j0 + n, kv) + i];
        }
        if (i < a.d)
          result[i] = sum;
      }
    }
  }
};

struct AttendKeys {  // r: key and its head; dk and dv
  const float *q, *k, *v, *lse, *dout, *delta;
  const int* range;  // (2, Tk): first query row that sees the key, one past the last
  float *dk, *dv;
  Heads a;
  Index keys;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const Index j = r / a.kv_heads;
    const Index kv = r % a.kv_heads;
    const Index first = range[j];
    const Index last = range[keys + j];
    const Index each = a.heads / a.kv_heads;
    const Index at = a.key(j, kv);
    const Index to = a.value(j, kv);
    for (Index i = g.lane(); i < a.d; i += G::width)
      dk[at + i] = 0;
    for (Index i = g.lane(); i < a.n; i += G::width)
      dv[to + i] = 0;
    for (Index h = kv * each; h < (kv + 1) * each; ++h) {
      for (Index t0 = first; t0 < last; t0 += G::width) {
        const Index t = t0 + g.lane();
        const Index count = last - t0 < G::width ? last - t0 : G::width;
        float p = 0;
        float ds = 0;
        if (t < last) {
          p = std::exp(a.scale * a.dot(q + a.query(t, h), k + at, a.d) - lse[t * a.heads + h]);
          ds = p * (a.dot(dout + a.output(t, h), v + to, a.n) - delta[t * a.heads + h]) * a.scale;
        }
        add_queries(g, p, ds, t0, count, h, dk + at, dv + to);
      }
    }
  }
  // Adds what `count` queries from t0 on bring; p and ds of query n are those of lane n.
  template <class G>
  MOE_HD void add_queries(const G& g, float p, float ds, Index t0, Index count, Index h,
                          float* k_sum, float* v_sum) const {
    const Index wide = a.d < a.n ? a.n : a.d;
    for (Index i0 = 0; i0 < wide; i0 += G::width) {
      const Index i = i0 + g.lane();
      float sum_k = i < a.d ? k_sum[i] : 0;
      float sum_v = i < a.n ? v_sum[i] : 0;
      for (Index n = 0; n < count; ++n) {
        const float pn = g.from(p, int(n));
        const float dn = g.from(ds, int(n));
        if (i < a.d)
          sum_k += dn * q[a.query(t0 + n, h) + i];
        if (i < a.n)
          sum_v += pn * dout[a.output(t0 + n, h) + i];
      }
      if (i < a.d)
        k_sum[i] = sum_k;
      if (i < a.n)
        v_sum[i] = sum_v;
    }
  }
};

}  // namespace moe::gpu
