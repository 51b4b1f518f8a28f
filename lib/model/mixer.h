// The part of a layer that lets a token see those before it: attention, or a recurrent mixer. The
// decoder, the groups of `--train`, initial weights, published names and costs know no mixer by
// name; mixer_type.h says how one is chosen and added.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "lib/core/matrix.h"
#include "lib/layer/past.h"
#include "lib/model/model_parameter.h"

namespace moe {

struct Batch;

// What forward leaves for backward.
struct MixerTape {
  virtual ~MixerTape() = default;
};
// What a whole model keeps of the sequences decoded so far. An empty one is filled by the first
// batch; the same sequences follow in every batch after it.
struct DecoderState {
  std::vector<std::unique_ptr<MixerState>> layer;  // null of a layer without a mixer
  std::vector<std::unique_ptr<MixerState>>
      feed;                  // of those whose feed-forward mixes rows too, else null
  std::vector<Index> start;  // (Q+1) rows of each sequence so far, end to end
  // (Q) position of a row of text behind each sequence, where batches brought positions in time,
  // height and width; empty = rows so far
  std::vector<int> next;
  // Of an encoder-decoder: what the encoder read, and in each of the decoder's layers the keys and
  // values of its output.
  std::shared_ptr<const Batch> source;
  std::vector<std::unique_ptr<MixerState>> memory;
};

template <class S>
class Mixer {
 public:
  virtual ~Mixer() = default;
  // y = mixer(x), where a row depends on earlier rows of its sequence only. With a past, the
  // batch's rows continue its sequences; such a pass has no backward.
  virtual std::unique_ptr<MixerTape> forward(const Batch&, View<const S> x /*(T,H)*/,
                                             View<S> y /*(T,H), set*/, MixerPast*) = 0;
  // Adds to the gradients of what is trained. `x` as in forward, `tape` what it returned.
  virtual void backward(const Batch&, const MixerTape& tape, View<const S> x, View<const S> dy,
                        View<S> dx /*set*/) = 0;
  // of sequences that have not begun
  virtual std::unique_ptr<MixerState> new_state(Index sequences) const = 0;
  // in a fixed order; group and layer are left to the model
  virtual void collect(std::vector<ModelParameter<S>>& all) = 0;
};

// Position of every row in its sequence, (1,T); `state`: where sequences of a state start, else
// empty.
Matrix<int> positions(const Batch&, std::span<const Index> state);

// Rows of each sequence in the state after this batch, (Q+1). Throws Error(bug) where batch and
// state do not fit.
std::vector<Index> grown(const Batch&, std::span<const Index> start);

}  // namespace moe
