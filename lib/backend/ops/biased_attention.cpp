// The definition: out_i = sum_j softmax_j(scale q_i.k_j + b(j-i)) v_j over the keys that i sees.
#include "lib/backend/ops/biased_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/backend/delegate.h"
#include "lib/backend/row_products.h"

namespace moe {

KeyRange keys_of_query(const AttentionShape& a, const KeyRule& rule, Index row, Index i,
                       Index queries, Index keys) {
  if (!rule.causal)
    return {0, keys};
  const Index at = keys - queries + i;
  return {a.first_key(at), rule.last.empty() ? at + 1 : rule.last[std::size_t(row)]};
}

namespace {

// Calls each(row of q, head, the keys that it sees, first key row, column of the bias of key 0).
template <class Each>
void for_heads(const AttentionShape& a, const KeyRule& rule, Index reach, Each each) {
  for (std::size_t s = 0; s + 1 < a.query_start.size(); ++s) {
    const Index queries = a.query_start[s + 1] - a.query_start[s];
    const Index keys = a.key_start[s + 1] - a.key_start[s];
    for (Index i = 0; i < queries; ++i) {
      const KeyRange seen = keys_of_query(a, rule, a.query_start[s] + i, i, queries, keys);
      const Index at = rule.causal ? keys - queries + i : i;
      for (Index h = 0; h < a.heads; ++h)
        each(a.query_start[s] + i, h, seen, a.key_start[s], reach - 1 - at);
    }
  }
}

// One query and head: scores of the keys that are seen.
template <class S>
struct Scores {
  View<const S> q, k, bias;
  const AttentionShape& a;
  const KeyRule& rule;

  bool sees(Index key) const {
    return rule.valid.empty() || rule.valid[std::size_t(key)];
  }
  double largest(Index t, Index h, KeyRange seen, Index start, Index zero) const {
    double top = -std::numeric_limits<double>::infinity();
    for (Index j = seen.first; j < seen.last; ++j) {
      if (sees(start + j))
        top = std::fmax(top, at(t, h, start, j, zero));
    }
    return top;
  }
  // of key j of the sequence whose keys begin at row `start`
  double at(Index t, Index h, Index start, Index j, Index zero) const {
    const Index d = a.head_dim;
    const Index g = h / (a.heads / a.kv_heads);
    const double plain = a.scale * row_dot(&q(t, h * d), &k(start + j, g * d), d);
    return bias.size() == 0 ? plain : plain + double(bias(h, zero + j));
  }
};

// Where the gradients of one query, head and key go.
template <class S>
struct RowGradients {
  const AttentionShape& a;
  View<const S> q, k, dout;
  View<S> dq, dk, dv;

  void clear() const {
    for (const View<S>& m : {dq, dk, dv})
      std::ranges::fill(m.flat(), S(0));
  }
  // p and ds: the probability, and the gradient by the score
  void add_pair(Index t, Index h, Index key, double p, double ds) const {
    const Index d = a.head_dim;
    const Index n = a.value_columns();
    const Index g = h / (a.heads / a.kv_heads);
    row_add(p, &dout(t, h * n), &dv(key, g * n), n);
    row_add(ds * a.scale, &k(key, g * d), &dq(t, h * d), d);
    row_add(ds * a.scale, &q(t, h * d), &dk(key, g * d), d);
  }
};

}  // namespace

template <class S>
void BiasedAttentionOps<S>::biased_attention(View<const S> q, View<const S> k, View<const S> v,
                                             View<const S> bias, const AttentionShape& a,
                                             const KeyRule& rule, View<S> out, View<S> lse) {
  if (this->delegated(Operation::biased_attention, &BiasedAttentionOps::biased_attention, q, k, v,
                      bias, a, rule, out, lse)) {
    return;
  }
  const Index dv = a.value_columns();
  const Scores<S> score{q, k, bias, a, rule};
  std::vector<double> sum(std::size_t(dv), 0.0);
  for_heads(a, rule, (bias.cols + 1) / 2,
            [&](Index t, Index h, KeyRange seen, Index start, Index zero) {
              const Index g = h / (a.heads / a.kv_heads);
              const double top = score.largest(t, h, seen, start, zero);
              double total = 0;
              std::ranges::fill(sum, 0.0);
              for (Index j = seen.first; j < seen.last; ++j) {
                if (!score.sees(start + j))
                  continue;
                const double p = std::exp(score.at(t, h, start, j, zero) - top);
                total += p;
                for (Index i = 0; i < dv; ++i)
                  sum[std::size_t(i)] += p * double(v(start + j, g * dv + i));
              }
              for (Index i = 0; i < dv; ++i)
                out(t, h * dv + i) = total > 0 ? S(sum[std::size_t(i)] / total) : S(0);
              lse(t, h) = S(total > 0 ? top + std::log(total) : top);
            });
}

template <class S>
void BiasedAttentionOps<S>::biased_attention_backward(View<const S> q, View<const S> k,
                                                      View<const S> v, View<const S> bias,
                                                      View<const S> out, View<const S> lse,
                                                      View<const S> dout, const AttentionShape& a,
                                                      const KeyRule& rule, View<S> dq, View<S> dk,
                                                      View<S> dv, View<S> dbias) {
  if (this->delegated(Operation::biased_attention_backward,
                      &BiasedAttentionOps::biased_attention_backward, q, k, v, bias, out, lse, dout,
                      a, rule, dq, dk, dv, dbias)) {
    return;
  }
  const Index n = a.value_columns();
  const Scores<S> score{q, k, bias, a, rule};
  const RowGradients<S> gradients{a, q, k, dout, dq, dk, dv};
  gradients.clear();
  for_heads(a, rule, (bias.cols + 1) / 2,
            [&](Index t, Index h, KeyRange seen, Index start, Index zero) {
              const Index g = h / (a.heads / a.kv_heads);
              const double delta = row_dot(&out(t, h * n), &dout(t, h * n), n);
              for (Index j = seen.first; j < seen.last; ++j) {
                if (!score.sees(start + j))
                  continue;
                const double p = std::exp(score.at(t, h, start, j, zero) - double(lse(t, h)));
                const double ds = p * (row_dot(&dout(t, h * n), &v(start + j, g * n), n) - delta);
                gradients.add_pair(t, h, start + j, p, ds);
                if (dbias.size() > 0)
                  dbias(h, zero + j) += S(ds);
              }
            });
}

template class BiasedAttentionOps<float>;
template class BiasedAttentionOps<double>;

}  // namespace moe
