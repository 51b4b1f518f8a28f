// The encoder of an encoder-decoder: its half of Decoder, and what the decoder's layers do with its
// output.
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixers/plain_attention.h"

namespace moe {

template <class S>
const Batch& Decoder<S>::source_of(const Batch& batch, DecoderState* state) const {
  if (batch.source && state)
    state->source = batch.source;
  const auto& source = state ? state->source : batch.source;
  if (!source) {
    throw Error(Exit::usage, concat("a model with an encoder of ", config_->encoder_layers,
                                    " layers reads a source for each sequence, and none was given"))
        .hint(
            "data of pairs (--data pairs:path=FILE.tsv), or text with a task "
            "(--data text:path=FILE,task=denoise)");
  }
  return *source;
}

// The same pass over the source. Where padding is routed as any token, feed-forwards are not told
// of it; attention is.
template <class S>
Pass Decoder<S>::encoder_pass(const Pass& pass, Tape& tape) const {
  const Batch* batch = pass.batch.source.get();
  if (config_->route_padding && !batch->valid.empty()) {
    if (!tape.source.routed) {
      auto all = std::make_unique<Batch>(*batch);
      all->valid.clear();
      tape.source.routed = std::move(all);
    }
    batch = tape.source.routed.get();
  }
  return {.batch = *batch,
          .training = pass.training,
          .rng = pass.rng,
          .loss_scale = pass.loss_scale,
          .other_counts = pass.other_counts,
          .counts_follow = pass.counts_follow,
          .layers = pass.layers};
}

template <class S>
void Decoder<S>::encode(const Pass& pass, Tape& tape, const TapeOf& tape_of, const Visit& done) {
  const Batch& source = *pass.batch.source;
  SourceTape& t = tape.source;
  t = {};
  for (const int id : source.token) {
    if (id < 0 || id >= config_->vocabulary) {
      throw Error(Exit::input, concat("token ", id, " of the source is outside the vocabulary of ",
                                      config_->vocabulary))
          .hint("use the tokenizer the model was trained with");
    }
  }
  t.token = Array<int>(backend_, View<const int>{source.token.data(), 1, source.tokens()});
  Array<S> x(backend_, source.tokens(), config_->hidden);
  {
    const TimeSpan time(TimePart::output, "embedding of the source");
    backend_.embed(source_table().weight(), t.token.view(), x.view());
  }
  scale(x.view(), config_->embedding_scale);
  if (config_->sinusoidal)
    add_positions(source, x.view(), nullptr);
  const Pass own = encoder_pass(pass, tape);
  t.last = run_layers({.pass = own, .batch = source}, 0, config_->encoder_layers, std::move(x),
                      tape_of, done);
  t.memory = Array<S>(backend_, source.tokens(), config_->hidden);
  t.rstd = Array<S>(backend_, source.tokens(), 1);
  encoder_norm_.forward(t.last.view(), t.memory.view(), t.rstd.view());
}

template <class S>
void Decoder<S>::encode_backward(const Pass& pass, Tape& tape, Array<S> dmemory) {
  SourceTape& t = tape.source;
  Array<S> dx(backend_, dmemory.rows(), dmemory.cols());
  encoder_norm_.backward(dmemory.view(), t.last.view(), t.rstd.view(), dx.view(), 0);
  dmemory = {};
  t.last = {};
  t.memory = {};
  const Pass own = encoder_pass(pass, tape);
  backward_layers({.pass = own, .batch = *pass.batch.source}, 0, config_->encoder_layers, tape,
                  dx.view());
  embed_backward(dx.view(), t.token, source_table());
}

// sin and cos of position * 10000^(-i/(H/2-1)), positions counted from the first token that is not
// padding, behind the id of padding (transformers' NLLB); padding gets nothing. Angles in float, as
// the class has them.
template <class S>
void Decoder<S>::add_positions(const Batch& batch, View<S> x, const DecoderState* state) {
  const Index half = config_->hidden / 2;
  const int pad = config_->pad_token;
  const float step = float(-std::log(10000.0) / double(half - 1));
  Matrix<S> out(x.rows, x.cols);
  for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
    Index at = pad + 1 + (state ? state->start[q + 1] - state->start[q] : 0);
    for (Index t = batch.start[q]; t < batch.start[q + 1]; ++t) {
      if (batch.token[std::size_t(t)] == pad)
        continue;
      for (Index i = 0; i < half; ++i) {
        const double angle = double(float(at) * std::exp(float(i) * step));
        out(t, i) = S(std::sin(angle));
        out(t, half + i) = S(std::cos(angle));
      }
      ++at;
    }
  }
  const Array<S> positions(backend_, std::as_const(out).view());
  backend_.add(positions.view(), x, 1);
}

template <class S>
void Decoder<S>::embed_backward(View<S> dx, const Array<int>& token, Parameter<S>& table) {
  const TimeSpan time(TimePart::output, "embedding backward");
  scale(dx, config_->embedding_scale);
  if (!table.grad().empty())
    backend_.embed_backward(dx, token.view(), table.grad());
}

template <class S>
void Decoder<S>::attend(const Stage& stage, int layer, BlockTape& t) {
  const TimeSpan time(TimePart::mixer, "cross-attention");
  Block& b = blocks_[std::size_t(layer)];
  const Index rows = t.mixed.rows();
  const Index cols = t.mixed.cols();
  t.own = std::exchange(t.mixed, Array<S>(backend_, rows, cols));
  t.cross_in = Array<S>(backend_, rows, cols);
  t.cross_rstd = Array<S>(backend_, rows, 1);
  b.cross_norm.forward(t.own.view(), t.cross_in.view(), t.cross_rstd.view());
  MixerState* kept = stage.state ? stage.state->memory[std::size_t(layer)].get() : nullptr;
  t.cross = b.cross->forward(stage.batch, t.cross_in.view(), stage.memory, *stage.source,
                             t.mixed.view(), kept);
  scale(t.mixed.view(), config_->residual_scale);
  backend_.add(t.own.view(), t.mixed.view(), 1);
}

// Adds to dx, where dy may stand as well: the branch is done with it before.
template <class S>
void Decoder<S>::attend_backward(const Stage& stage, int layer, BlockTape& t, View<const S> dy,
                                 View<S> dx) {
  const TimeSpan time(TimePart::mixer, "cross-attention backward");
  Block& b = blocks_[std::size_t(layer)];
  Array<S> part(backend_, dx.rows, dx.cols);
  b.cross->backward(stage.batch, *t.cross, t.cross_in.view(), stage.memory, *stage.source, dy,
                    part.view(), stage.dmemory);
  b.cross_norm.backward(part.view(), t.own.view(), t.cross_rstd.view(), dx, 1);
  t.own = {};
  t.cross_in = {};
  t.cross_rstd = {};
  t.cross = {};
}

#define MEMBERS(S)                                                                     \
  template const Batch& Decoder<S>::source_of(const Batch&, DecoderState*) const;      \
  template Pass Decoder<S>::encoder_pass(const Pass&, Tape&) const;                    \
  template void Decoder<S>::encode(const Pass&, Tape&, const TapeOf&, const Visit&);   \
  template void Decoder<S>::encode_backward(const Pass&, Tape&, Array<S>);             \
  template void Decoder<S>::add_positions(const Batch&, View<S>, const DecoderState*); \
  template void Decoder<S>::embed_backward(View<S>, const Array<int>&, Parameter<S>&); \
  template void Decoder<S>::attend(const Stage&, int, BlockTape&);                     \
  template void Decoder<S>::attend_backward(const Stage&, int, BlockTape&, View<const S>, View<S>);
MEMBERS(float)
MEMBERS(double)
#undef MEMBERS

}  // namespace moe
