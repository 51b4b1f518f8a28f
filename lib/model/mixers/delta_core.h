// What gated delta net and Kimi delta attention share: keys and queries of length one from what the
// convolution gave, and the delta rule S = S + k (beta (v - S'k))' on decayed states. On host
// memory.
#pragma once
#include "lib/core/batch.h"
#include "lib/model/mixers/host_side.h"
#include "lib/model/recurrent.h"

namespace moe {

template <class S>
struct DeltaTape {
  Array<S> q, a;                // (T, key_heads*key): q / (|q| sqrt key), -k/|k|
  Array<S> length_q, length_k;  // (T, key_heads) 1/|.|
  Array<S> v;                   // (T, value_heads*value)
  Array<S> b;                   // (T, value_heads*key) beta k
  Array<S> states;              // of a pass with a past: what the state held

  // Numbers of a token.
  static Index numbers(Index key_heads, Index value_heads, Index key, Index value) {
    return 2 * key_heads * (key + 1) + value_heads * (key + value);
  }
};

template <class S>
struct DeltaCore {
  const HostSide<S>& side;
  Index key_heads = 1, value_heads = 1;  // of q and k, of v and the states
  Index key = 1, value = 1;              // numbers of a head

  Index keys() const {
    return key_heads * key;
  }
  Index values() const {
    return value_heads * value;
  }
  StatePart<S> new_state(Index sequences) const {
    return {"state", value_heads * key, side.zeros(sequences * value_heads * key, value),
            value_heads};
  }
  // Sets o (T, values) from [q|k|v] as the convolution gave them, beta in (0,1) and the decays.
  void forward(const Batch&, View<const S> mixed /*(T, 2 keys + values)*/,
               View<const S> beta /*(T, value_heads)*/,
               View<const S> decay /*(T, value_heads) or (T, keys)*/, DeltaTape<S>&, View<S> o,
               StatePart<S>* state) const;
  // Sets the gradients by the arguments of forward.
  void backward(const Batch&, const DeltaTape<S>&, View<const S> mixed, View<const S> beta,
                View<const S> decay, View<const S> d_o, View<S> dmixed, View<S> dbeta,
                View<S> ddecay, StatePart<S>* gradient) const;

 private:
  void make_arrays(DeltaTape<S>&, Index rows) const;
  ScanShape shape(const Batch&) const;
  ScanInputs<S> inputs(const DeltaTape<S>&, View<const S> decay) const;
  void row_backward(const DeltaTape<S>&, Index t, View<const S> beta, View<const S> da,
                    View<const S> db, View<const S> dq, S* dmixed, View<S> dbeta) const;
};

extern template struct DeltaCore<float>;
extern template struct DeltaCore<double>;

}  // namespace moe
