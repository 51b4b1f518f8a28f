// Compressed keys (DeepSeek-V4): every full window of `rate` rows of a sequence becomes one entry,
//   e = rmsnorm( sum_r softmax_r(W_gate x_r + place_r) * (W_kv x_r) ), number by number,
// turned by the position of the window's first row. With `overlap` the products are 2d wide: their
// first half speaks to the entry of the next window, the second to that of their own, and one
// softmax runs over both windows.
#pragma once
#include <vector>

#include "lib/model/mixers/host_side.h"
#include "lib/model/model_parameter.h"
#include "lib/model/rotary.h"

namespace moe {

struct CompressorSizes {
  int rate = 0, dim = 0, turned = 0;  // turned: the last numbers of an entry
  bool overlap = false;

  Index cols() const {  // of the products
    return Index(dim) * (overlap ? 2 : 1);
  }
};

// Entries of all sequences, end to end; host memory.
template <class S>
struct CompressedKeys {
  Array<S> entry;             // (n,d)
  std::vector<Index> start;   // (Q+1)
  Array<S> gate, value;       // (T,cols) what forward leaves for backward
  Array<S> pooled, rstd;      // (n,d), (n,1)
  std::vector<Index> window;  // (n) first row of each entry's window in the batch
  std::vector<Index> place;   // (n) of it in its sequence
};

// What decoding keeps of a sequence: its entries, and rows of the products that the next one reads.
template <class S>
struct CompressorState {
  struct Sequence {
    std::vector<S> entry, gate, value;
    Index entries = 0, first = 0;  // row of the sequence that gate and value begin with
  };
  std::vector<Sequence> sequence;
};

template <class S>
class KeyCompressor {
 public:
  KeyCompressor() = default;
  // prefix: of the parameters' names "kv", "gate", "place", "norm"
  KeyCompressor(const HostSide<S>&, const CompressorSizes&, Index hidden, const std::string& prefix,
                double eps, const Rotary&);

  // Entries of the batch's rows, or with `kept` of all rows so far.
  CompressedKeys<S> forward(std::span<const Index> start, View<const S> x,
                            CompressorState<S>* kept) const;
  // dentry (n,d) is overwritten; dx += gradient
  void backward(const CompressedKeys<S>&, View<const S> x, Array<S> dentry, View<S> dx);
  // published: what stands before "wkv.weight", "wgate.weight", "ape", "norm.weight"
  void collect(const ModelConfig&, const std::string& published,
               std::vector<ModelParameter<S>>& all);
  void freeze();

 private:
  void pool_backward(const CompressedKeys<S>&, Index entry, View<const S> place, const S* dpooled,
                     Array<S>& dgate, Array<S>& dvalue, S* dplace) const;
  // pooled -> entry
  void finish(View<const S> pooled, const std::vector<Index>& place, View<S> rstd,
              View<S> entry) const;
  void turn(View<S> entry, const std::vector<Index>& place, bool back) const;
  void make(CompressedKeys<S>&) const;
  void complete(typename CompressorState<S>::Sequence&, Index fresh) const;
  void grow(typename CompressorState<S>::Sequence&, View<const S> gate, View<const S> value) const;
  CompressedKeys<S> gathered(const CompressorState<S>&) const;

  const HostSide<S>* side_ = nullptr;
  CompressorSizes n_;
  double eps_ = 0;
  Rotary rotary_;
  Parameter<S> kv_, gate_, place_, norm_;
};

extern template class KeyCompressor<float>;
extern template class KeyCompressor<double>;

}  // namespace moe
