// A layer of a decoder with several residual streams: what its branches read and how they come back
// is said in streams.h.
#include "lib/core/profile.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixers/plain_attention.h"

namespace moe {
namespace {

// What a branch reads of the streams x, normed into `normed`; room for what it puts out.
template <class S>
void read_normed(Backend<S>& backend, Index hidden, const HyperConnection<S>& streams,
                 const Norm<S>& norm, View<const S> x, StreamTape<S>& s, Array<S>& normed,
                 Array<S>& rstd) {
  streams.read(x, s);
  rstd = Array<S>(backend, x.rows, 1);
  normed = Array<S>(backend, x.rows, hidden);
  norm.forward(s.read.view(), normed.view(), rstd.view());
  s.out = Array<S>(backend, x.rows, hidden);
}

}  // namespace

template <class S>
void Decoder<S>::mix_streams(const Batch& batch, int layer, BlockTape& t, DecoderState* state) {
  Block& b = blocks_[std::size_t(layer)];
  StreamTape<S>& s = t.mixer_stream;
  const View<const S> x = std::as_const(t.x).view();
  read_normed(backend_, config_->hidden, *b.mixer_streams, b.mixer_norm, x, s, t.normed, t.rstd);
  run_mixer(batch, layer, t, s.out.view(), state);
  t.mixed = Array<S>(backend_, x.rows, x.cols);
  b.mixer_streams->put_back(x, s, t.mixed.view());
}

template <class S>
Array<S> Decoder<S>::feed_streams(const Pass& pass, int layer, BlockTape& t, DecoderState* state) {
  Block& b = blocks_[std::size_t(layer)];
  StreamTape<S>& s = t.feed_stream;
  const View<const S> x = std::as_const(t.mixed).view();
  read_normed(backend_, config_->hidden, *b.feed_streams, b.feed_norm, x, s, t.feed_in,
              t.feed_rstd);
  run_feed(pass, layer, t, s.out.view(), state);
  Array<S> y(backend_, x.rows, x.cols);
  b.feed_streams->put_back(x, s, y.view());
  return y;
}

template <class S>
void Decoder<S>::mix_streams_backward(const Batch& batch, Block& b, BlockTape& t, View<S> dx) {
  const StreamTape<S>& s = t.mixer_stream;
  const View<const S> x = std::as_const(t.x).view();
  Array<S> dbranch(backend_, dx.rows, config_->hidden);
  Array<S> dnormed(backend_, dx.rows, config_->hidden);
  Array<S> dz;
  b.mixer_streams->put_back_backward(x, s, dx, dbranch.view(), dz);
  {
    const TimeSpan time(TimePart::mixer, "mixer backward");
    b.mixer->backward(batch, *t.mixer, mixer_input(t), dbranch.view(), dnormed.view());
  }
  b.mixer_norm.backward(dnormed.view(), s.read.view(), t.rstd.view(), dbranch.view(), 0);
  b.mixer_streams->read_backward(x, s, std::as_const(dbranch).view(), std::move(dz), dx);
  t.x = {};
  t.normed = {};
  t.rstd = {};
  t.mixer = {};
  t.mixer_stream = {};
}

template <class S>
void Decoder<S>::feed_streams_backward(const Pass& pass, int layer, BlockTape& t, View<S> dx,
                                       const GateGradients& gate) {
  Block& b = blocks_[std::size_t(layer)];
  const StreamTape<S>& s = t.feed_stream;
  const View<const S> x = std::as_const(t.mixed).view();
  Array<S> dbranch(backend_, dx.rows, config_->hidden);
  Array<S> dnormed(backend_, dx.rows, config_->hidden);
  Array<S> dz;
  b.feed_streams->put_back_backward(x, s, dx, dbranch.view(), dz);
  body_backward(pass, layer, t, dbranch.view(), dnormed.view(), gate);
  b.feed_norm.backward(dnormed.view(), s.read.view(), t.feed_rstd.view(), dbranch.view(), 0);
  b.feed_streams->read_backward(x, s, std::as_const(dbranch).view(), std::move(dz), dx);
}

template <class S>
void Decoder<S>::body_backward(const Pass& pass, int layer, BlockTape& t, View<const S> dy,
                               View<S> dread, const GateGradients& gate) {
  Block& b = blocks_[std::size_t(layer)];
  if (b.moe)
    b.moe->backward(of_layer(pass, layer), *t.moe, feed_input(t), dy, dread, gate);
  else if (b.dense)
    b.dense->backward(t.dense, feed_input(t), dy, dread);
  else {
    const TimeSpan time(TimePart::mixer, "mixer backward");
    b.feed_mixer->backward(pass.batch, *t.feed_mixer, feed_input(t), dy, dread);
  }
}

// decoder.h leaves what it declares to decoder.cpp, so each of these is asked for by itself.
#define INSTANTIATE(S)                                                                          \
  template void Decoder<S>::mix_streams(const Batch&, int, BlockTape&, DecoderState*);          \
  template Array<S> Decoder<S>::feed_streams(const Pass&, int, BlockTape&, DecoderState*);      \
  template void Decoder<S>::mix_streams_backward(const Batch&, Block&, BlockTape&, View<S>);    \
  template void Decoder<S>::feed_streams_backward(const Pass&, int, BlockTape&, View<S>,        \
                                                  const GateGradients&);                        \
  template void Decoder<S>::body_backward(const Pass&, int, BlockTape&, View<const S>, View<S>, \
                                          const GateGradients&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
