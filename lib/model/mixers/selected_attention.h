// Attention of queries to chosen keys only, and the indexer that chooses them (DeepSeek-V3.2,
// 2512.02556): score(t,j) = sum_h w_th relu(q_th . k_j d^-1/2) H^-1/2 over the keys j up to t, of
// which a query keeps the best. Both on the host; nothing trains the indexer, whose class has no
// gradient either.
#pragma once
#include <span>
#include <vector>

#include "lib/backend/ops/attention.h"
#include "lib/core/view.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/host_side.h"
#include "lib/model/rotary.h"

namespace moe {

// Keys of each query, counted in its sequence, ascending.
struct ChosenKeys {
  std::vector<std::vector<int>> of_query;
};
// The choice of the last layer with an indexer, for layers that share it. Of one pass.
template <class S>
class SharedChoice final : public SharedPart<S> {
 public:
  std::shared_ptr<const ChosenKeys> keys;
  void collect(std::vector<ModelParameter<S>>&) override {}
};

struct IndexSizes {
  int heads = 0, dim = 0, topk = 0;
};
// Of keys first_key[t] .. first_key[t] + count[t] the best of each query by the score above, the
// lower index among equals. q (T,heads*dim), weight (T,heads), keys (..,dim), host memory.
template <class S>
ChosenKeys choose_keys(const IndexSizes&, View<const S> q, View<const S> weight, View<const S> keys,
                       std::span<const Index> first_key, std::span<const Index> count);

// As AttentionOps::attention() and its backward, over the chosen keys alone; a query without any
// has an output of 0 and an lse of -inf. Keys may be others than rows of the sequence: then
// key_start counts those. Host memory.
template <class S>
void selected_attention(View<const S> q, View<const S> k, View<const S> v, const AttentionShape&,
                        const ChosenKeys&, View<S> out, View<S> lse);
template <class S>
void selected_attention_backward(View<const S> q, View<const S> k, View<const S> v,
                                 View<const S> out, View<const S> lse, View<const S> dout,
                                 const AttentionShape&, const ChosenKeys&, View<S> dq, View<S> dk,
                                 View<S> dv);

template <class S>
class Indexer {
 public:
  Indexer() = default;
  Indexer(const ModelConfig&, Backend<S>&);
  bool empty() const {
    return wq_.empty();
  }
  // (T,d) turned keys of x
  Array<S> keys(View<const S> x, View<const int> position, int furthest);
  // `keys`: all of the sequences, end to end as key_start says; latent_q (T,q_rank) of queries
  ChosenKeys choose(View<const S> x, View<const S> latent_q, View<const int> position, int furthest,
                    View<const S> keys, std::span<const Index> query_start,
                    std::span<const Index> key_start);
  // "index_q", "index_k", "index_k_norm", "index_k_norm_bias", "index_weights"
  void collect(std::vector<Parameter<S>*>& all);

 private:
  Array<S> product(View<const S> x, const Parameter<S>& w);
  void turn(View<S> heads, View<const int> position, int furthest);

  Backend<S>* backend_ = nullptr;
  int heads_ = 0, dim_ = 0, topk_ = 0;
  bool interleaved_ = false;
  Rotary rotary_;
  Parameter<S> wq_, wk_, norm_, norm_bias_, weights_;
};

}  // namespace moe
