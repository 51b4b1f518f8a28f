// The decoder without gradients: losses and logits of a pass, and states that go on.
#include <algorithm>

#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixers/plain_attention.h"

namespace moe {
namespace {

constexpr Index rows_of_logits = 1024;  // at once

}  // namespace

// Loss and best guess of rows first.. from their logits.
template <class S>
void Decoder<S>::losses(Tape& tape, View<S> logits, Index first) {
  Matrix<S> host(logits.rows, logits.cols);
  backend_.to_host(logits.data, host.data(), std::size_t(host.size()) * sizeof(S));
  for (Index t = 0; t < host.rows(); ++t)
    tape.predicted(0, first + t) = int(std::ranges::max_element(host.row(t)) - host.row(t).begin());
  Array<S> device(backend_, 1, logits.rows);
  const View<const int> target{tape.target.view().data + first, 1, logits.rows};
  backend_.cross_entropy(logits, target, device.view(), 0, false);
  const Matrix<S> loss = device.to_host();
  std::ranges::copy(loss.flat(), tape.token_loss.data() + first);
  for (const S v : loss.flat())
    tape.loss += double(v) / double(std::max<Index>(tape.targets, 1));
}

// Losses and best guesses of all rows, some at a time.
template <class S>
void Decoder<S>::score_targets(Tape& tape) {
  const Index rows = tape.normed.rows();
  tape.predicted = Matrix<int>(1, rows);
  for (Index first = 0; first < rows; first += rows_of_logits) {
    Array<S> z(backend_, std::min(rows_of_logits, rows - first), config_->vocabulary);
    logits(tape.normed.view().slice(first, z.rows()), z.view());
    losses(tape, z.view(), first);
  }
}

// Of the last valid row of each sequence.
template <class S>
Matrix<S> Decoder<S>::logits_at_end(const Batch& batch, const Tape& tape) {
  auto last = Array<S>::zeros(backend_, batch.sequences(), config_->hidden);
  for (Index q = 0; q < last.rows(); ++q) {
    const Index first = batch.start[std::size_t(q)];
    Index end = batch.start[std::size_t(q) + 1];
    while (end > first && !batch.is_valid(end - 1))
      --end;
    if (end > first)
      backend_.add(tape.normed.view().slice(end - 1, 1), last.view().slice(q, 1), 1);
  }
  Array<S> z(backend_, last.rows(), config_->vocabulary);
  logits(last.view(), z.view());
  return z.to_host();
}

// Rows of each sequence after the batch; fills a state that is empty.
template <class S>
std::vector<Index> Decoder<S>::begin(const Batch& batch, DecoderState& state) {
  if (state.layer.empty()) {
    const auto begun = [&](const std::unique_ptr<Mixer<S>>& mixer) {
      return mixer ? mixer->new_state(batch.sequences()) : nullptr;
    };
    for (const Block& b : blocks_) {
      state.layer.push_back(begun(b.mixer));
      const bool attends = b.moe && b.moe->attention();
      state.feed.push_back(attends ? b.moe->attention()->new_state() : begun(b.feed_mixer));
      state.memory.push_back(b.cross ? b.cross->new_state() : nullptr);
    }
    state.start.assign(batch.start.size(), 0);
  }
  return grown(batch, state.start);
}

template <class S>
void Decoder<S>::infer(const Pass& pass, Tape& out, const Observe& observe, DecoderState* state,
                       Matrix<S>* last_logits) {
  if (const std::optional<Batch> placed = state ? going_on(pass.batch, *state) : std::nullopt) {
    const Pass there{.batch = *placed,
                     .training = pass.training,
                     .rng = pass.rng,
                     .loss_scale = pass.loss_scale,
                     .other_counts = pass.other_counts,
                     .counts_follow = pass.counts_follow,
                     .gate = pass.gate,
                     .layers = pass.layers,
                     .past = pass.past};
    return infer(there, out, observe, state, last_logits);
  }
  hear(of_no_layer, At::before_forward);
  out.block.clear();
  std::vector<Index> after;
  if (state)
    after = begin(pass.batch, *state);
  std::optional<BlockTape> tape;  // of one layer at a time
  Pass mine = pass;
  mine.layers.losses_follow = true;
  const auto fresh = [&](int) -> BlockTape& {
    return tape.emplace();
  };
  Array<S> x = run_stacks(mine, out, state, fresh, [&](int l, BlockTape& t) {
    if (!t.moe || !observe)
      return;
    // an encoder has run in an earlier pass, where the state goes on
    const auto place = std::count_if(blocks_.begin(), blocks_.begin() + l,
                                     [](const Block& b) { return b.moe.has_value(); });
    blocks_[std::size_t(l)].moe->fetch_routing(*t.moe);
    observe(int(place), *t.moe, expert_input(t));
  });
  if (state) {
    remember_positions(pass.batch, *state);
    state->start = after;
  }
  read_out(std::move(x), out);
  if (out.targets > 0)
    score_targets(out);
  if (last_logits)
    *last_logits = logits_at_end(pass.batch, out);
  hear(of_no_layer, At::after_forward);
}

template <class S>
std::vector<MoeLayer<S>*> Decoder<S>::moe_layers() {
  std::vector<MoeLayer<S>*> out;
  for (Block& b : blocks_) {
    if (b.moe)
      out.push_back(&*b.moe);
  }
  return out;
}

template <class S>
int Decoder<S>::layer_of(int moe_layer) const {
  for (int l = 0; l < config_->layers; ++l) {
    if (blocks_[std::size_t(l)].moe && moe_layer-- == 0)
      return config_->published_layer(l);
  }
  throw Error(Exit::bug, concat("there is no such MoE layer among ", config_->moe_layers()));
}

// decoder.h leaves what it declares to decoder.cpp, so each of these is asked for by itself.
#define INSTANTIATE(S)                                                        \
  template int Decoder<S>::layer_of(int) const;                               \
  template std::vector<MoeLayer<S>*> Decoder<S>::moe_layers();                \
  template void Decoder<S>::losses(Tape&, View<S>, Index);                    \
  template void Decoder<S>::score_targets(Tape&);                             \
  template Matrix<S> Decoder<S>::logits_at_end(const Batch&, const Tape&);    \
  template std::vector<Index> Decoder<S>::begin(const Batch&, DecoderState&); \
  template void Decoder<S>::infer(const Pass&, Tape&, const Observe&, DecoderState*, Matrix<S>*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
