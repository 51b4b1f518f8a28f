#include "lib/model/mixers/selected_attention.h"
#include "lib/backend/row_products.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/parallel.h"
#include "lib/model/config.h"

namespace moe {
namespace {

constexpr double index_eps = 1e-6;  // of the norm of an indexer's keys

// Where the sequences of a batch stand among queries and keys.
struct Places {
  std::vector<Index> first_key, last_key;  // of the sequence of each query; the query's own key

  Places(std::span<const Index> query, std::span<const Index> key) {
    for (std::size_t s = 0; s + 1 < query.size(); ++s) {
      const Index past = key[s + 1] - key[s] - (query[s + 1] - query[s]);
      for (Index t = query[s]; t < query[s + 1]; ++t) {
        first_key.push_back(key[s]);
        last_key.push_back(key[s] + past + t - query[s]);
      }
    }
  }
};

template <class S>
void fill_zeros(std::initializer_list<View<S>> all) {
  for (const View<S>& v : all)
    std::ranges::fill(v.flat(), S(0));
}

// One head: where its rows start and how wide they are.
struct Head {
  Index q, k, v, out, d, n;
  Head(const AttentionShape& a, Index h) : d(a.head_dim), n(a.value_columns()) {
    const Index kv = h / (a.heads / a.kv_heads);
    q = h * d;
    k = kv * d;
    v = kv * n;
    out = h * n;
  }
};

// Calls each(query, head), a key head and a sequence at a time: the queries of those that share it
// add to its rows in a fixed order.
template <class Each>
void for_key_heads(const AttentionShape& a, const Each& each) {
  const Index sharing = a.heads / a.kv_heads;
  const Index sequences = Index(a.query_start.size()) - 1;
  parallel_for(a.kv_heads * sequences, 1, [&](Index piece, Index) {
    const auto s = std::size_t(piece % sequences);
    const Index group = piece / sequences;
    for (Index h = group * sharing; h < (group + 1) * sharing; ++h) {
      for (Index t = a.query_start[s]; t < a.query_start[s + 1]; ++t)
        each(t, h);
    }
  });
}

// The best `count` of scores (lower index first among equals), ascending.
std::vector<int> best(const std::vector<double>& score, Index count) {
  std::vector<int> order(score.size());
  std::iota(order.begin(), order.end(), 0);
  if (count >= Index(order.size()))
    return order;
  const auto better = [&](int a, int b) {
    const double x = score[std::size_t(a)];
    const double y = score[std::size_t(b)];
    return x != y ? x > y : a < b;
  };
  std::nth_element(order.begin(), order.begin() + count, order.end(), better);
  order.resize(std::size_t(count));
  std::ranges::sort(order);
  return order;
}

}  // namespace

template <class S>
void selected_attention(View<const S> q, View<const S> k, View<const S> v, const AttentionShape& a,
                        const ChosenKeys& chosen, View<S> out, View<S> lse) {
  const Places at(a.query_start, a.key_start);
  parallel_for(q.rows, 4, [&](Index first, Index last) {
    std::vector<double> score;
    for (Index t = first; t < last; ++t) {
      const std::vector<int>& keys = chosen.of_query[std::size_t(t)];
      for (Index h = 0; h < a.heads; ++h) {
        const Head head(a, h);
        score.clear();
        for (const int j : keys) {
          const S* key = k.row(at.first_key[std::size_t(t)] + j).data() + head.k;
          score.push_back(a.scale * row_dot(q.row(t).data() + head.q, key, head.d));
        }
        const double most = score.empty() ? -INFINITY : *std::ranges::max_element(score);
        double sum = 0;
        for (double& s : score)
          sum += s = std::exp(s - most);
        S* to = out.row(t).data() + head.out;
        std::fill(to, to + head.n, S(0));
        for (std::size_t i = 0; i < keys.size(); ++i) {
          const S* value = v.row(at.first_key[std::size_t(t)] + keys[i]).data() + head.v;
          row_add(score[i] / sum, value, to, head.n);
        }
        lse(t, h) = S(most + std::log(sum));
      }
    }
  });
}

template <class S>
void selected_attention_backward(View<const S> q, View<const S> k, View<const S> v,
                                 View<const S> out, View<const S> lse, View<const S> dout,
                                 const AttentionShape& a, const ChosenKeys& chosen, View<S> dq,
                                 View<S> dk, View<S> dv) {
  const Places at(a.query_start, a.key_start);
  fill_zeros<S>({dq, dk, dv});
  const auto add = [&](Index t, Index h) {
    const Head head(a, h);
    const S* query = q.row(t).data() + head.q;
    const S* arriving = dout.row(t).data() + head.out;
    const double share = row_dot(arriving, out.row(t).data() + head.out, head.n);
    for (const int j : chosen.of_query[std::size_t(t)]) {
      const Index row = at.first_key[std::size_t(t)] + j;
      const S* key = k.row(row).data() + head.k;
      const double score = a.scale * row_dot(query, key, head.d);
      const double p = std::exp(score - double(lse(t, h)));
      const double dp = row_dot(arriving, v.row(row).data() + head.v, head.n) - share;
      row_add(p, arriving, dv.row(row).data() + head.v, head.n);
      row_add(a.scale * p * dp, query, dk.row(row).data() + head.k, head.d);
      row_add(a.scale * p * dp, key, dq.row(t).data() + head.q, head.d);
    }
  };
  for_key_heads(a, add);
}

template <class S>
ChosenKeys choose_keys(const IndexSizes& n, View<const S> q, View<const S> weight,
                       View<const S> keys, std::span<const Index> first_key,
                       std::span<const Index> count) {
  const double scale = 1 / std::sqrt(double(n.dim)) / std::sqrt(double(n.heads));
  ChosenKeys out;
  out.of_query.resize(std::size_t(q.rows));
  parallel_for(q.rows, 4, [&](Index first, Index last) {
    std::vector<double> score;
    for (Index t = first; t < last; ++t) {
      const Index from = first_key[std::size_t(t)];
      score.assign(std::size_t(count[std::size_t(t)]), 0);
      for (std::size_t j = 0; j < score.size(); ++j) {
        for (Index h = 0; h < n.heads; ++h) {
          const double near =
              row_dot(q.row(t).data() + h * n.dim, keys.row(from + Index(j)).data(), n.dim);
          score[j] += near > 0 ? near * double(weight(t, h)) * scale : 0;
        }
      }
      out.of_query[std::size_t(t)] = best(score, n.topk);
    }
  });
  return out;
}

template <class S>
Indexer<S>::Indexer(const ModelConfig& c, Backend<S>& b)
    : backend_(&b),
      heads_(c.index_heads),
      dim_(c.index_dim),
      topk_(c.index_topk),
      interleaved_(c.index_interleaved),
      rotary_(rotary_of(c.rope, c.rope_dim, c.rope_theta)),
      wq_(b, "index_q", {Index(c.index_heads) * c.index_dim, c.q_rank}),
      wk_(b, "index_k", {c.index_dim, c.hidden}),
      norm_(b, "index_k_norm", {c.index_dim}, ParameterKind::vector),
      norm_bias_(b, "index_k_norm_bias", {c.index_dim}, ParameterKind::vector),
      weights_(b, "index_weights", {c.index_heads, c.hidden}) {
  for (Parameter<S>* p : {&wq_, &wk_, &norm_, &norm_bias_, &weights_})
    p->freeze();
}

template <class S>
void Indexer<S>::collect(std::vector<Parameter<S>*>& all) {
  if (!empty())
    all.insert(all.end(), {&wq_, &wk_, &norm_, &norm_bias_, &weights_});
}

template <class S>
Array<S> Indexer<S>::product(View<const S> x, const Parameter<S>& w) {
  Array<S> y(*backend_, x.rows, w.value().rows);
  backend_->linear(x, w.weight(), y.view(), 0);
  return y;
}

// the first numbers of each head
template <class S>
void Indexer<S>::turn(View<S> heads, View<const int> position, int furthest) {
  backend_->rope(heads, rotary_.rotation(dim_, 0, interleaved_, furthest), position, false);
}

template <class S>
Array<S> Indexer<S>::keys(View<const S> x, View<const int> position, int furthest) {
  Array<S> raw = product(x, wk_);
  backend_->center(raw.view());
  Array<S> out(*backend_, x.rows, dim_);
  Array<S> rstd(*backend_, x.rows, 1);
  backend_->norm(raw.view(), norm_.value(), index_eps, out.view(), rstd.view());
  backend_->add_bias(norm_bias_.value(), out.view());
  turn(out.view(), position, furthest);
  return out;
}

template <class S>
ChosenKeys Indexer<S>::choose(View<const S> x, View<const S> latent_q, View<const int> position,
                              int furthest, View<const S> keys, std::span<const Index> query_start,
                              std::span<const Index> key_start) {
  Array<S> turned = product(latent_q, wq_);
  turn(turned.view(), position, furthest);
  const HostSide<S> side(*backend_);
  const Array<S> weighing = product(x, weights_);
  const HostNumbers<S> q = side.read(std::as_const(turned).view());
  const HostNumbers<S> k = side.read(keys);
  const HostNumbers<S> w = side.read(weighing.view());
  const Places at(query_start, key_start);
  std::vector<Index> count;
  for (std::size_t t = 0; t < at.first_key.size(); ++t)
    count.push_back(at.last_key[t] + 1 - at.first_key[t]);
  return choose_keys<S>({heads_, dim_, topk_}, q.view, w.view, k.view, at.first_key, count);
}

#define INSTANTIATE(S)                                                                            \
  template ChosenKeys choose_keys(const IndexSizes&, View<const S>, View<const S>, View<const S>, \
                                  std::span<const Index>, std::span<const Index>);                \
  template void selected_attention(View<const S>, View<const S>, View<const S>,                   \
                                   const AttentionShape&, const ChosenKeys&, View<S>, View<S>);   \
  template void selected_attention_backward(                                                      \
      View<const S>, View<const S>, View<const S>, View<const S>, View<const S>, View<const S>,   \
      const AttentionShape&, const ChosenKeys&, View<S>, View<S>, View<S>);                       \
  template class Indexer<S>;
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
