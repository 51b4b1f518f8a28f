// The decoder forwards and backwards; what it does without gradients stands in decoder_infer.cpp.
#include "lib/model/decoder.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/model/architecture.h"
#include "lib/model/config.h"
#include "lib/model/linear.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/plain_attention.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// One mixer over a batch; `mine` is its state in `all` where sequences go on, or null.
template <class S>
std::unique_ptr<MixerTape> run(Mixer<S>& mixer, const Batch& batch, View<const S> x, View<S> y,
                               MixerState* mine, const DecoderState* all) {
  if (!mine)
    return mixer.forward(batch, x, y, nullptr);
  MixerPast past{*mine, all->start};
  return mixer.forward(batch, x, y, &past);
}

}  // namespace

template <class S>
std::vector<Parameter<S>*> Decoder<S>::parameters() {
  return pointers(inventory());
}
template <class S>
void Decoder<S>::fetch_routing(Tape& tape) {
  for (std::size_t l = 0; l < tape.block.size(); ++l) {
    if (tape.block[l].moe)
      blocks_[l].moe->fetch_routing(*tape.block[l].moe);
  }
}
template <class S>
void Decoder<S>::want_grads() {
  for (Parameter<S>* p : parameters())
    p->want_grad(backend_);
}
template <class S>
void Decoder<S>::clear_grads() {
  for (Parameter<S>* p : parameters())
    p->clear_grad();
}

template <class S>
Pass Decoder<S>::of_layer(const Pass& pass, int layer) const {
  Pass mine = pass;
  if (pass.other_counts.empty())
    return mine;
  const std::size_t experts = std::size_t(config_->moe.experts);
  const std::size_t layers = std::size_t(config_->moe_layers());
  if (pass.other_counts.size() != experts * layers) {
    throw Error(Exit::bug, concat(pass.other_counts.size(), " counts were given for ", layers,
                                  " MoE layers of ", experts, " experts"));
  }
  std::size_t place = 0;
  for (int l = 0; l < layer; ++l)
    place += blocks_[std::size_t(l)].moe.has_value();
  mine.other_counts = pass.other_counts.subspan(place * experts, experts);
  return mine;
}

template <class S>
Array<S> Decoder<S>::embed(const Batch& batch, Tape& tape) {
  const TimeSpan time(TimePart::output, "embedding");
  check_batch(batch);
  take_ids(batch, tape);
  const Index tokens = batch.tokens();
  late_ = {};
  Array<S> x(backend_, tokens, config_->hidden);
  backend_.embed(embedding_.weight(), tape.token.view(), x.view());
  scale(x.view(), config_->embedding_scale);
  put_given(batch, x.view());
  add_signals(batch, x.view(), tape);
  if (embedding_norm_.empty())
    return x;
  tape.embedded = std::exchange(x, Array<S>(backend_, tokens, config_->hidden));
  tape.embedded_rstd = Array<S>(backend_, tokens, 1);
  embedding_norm_.forward(tape.embedded.view(), x.view(), tape.embedded_rstd.view());
  return x;
}

// x -> mixed = x + mixer(norm(x)) -> mixed + feed(norm(mixed)), or with the norms outside
template <class S>
Array<S> Decoder<S>::forward(const Stage& stage, int layer, Array<S> x, BlockTape& t) {
  const TimeSpan time("layer", config_->published_layer(layer));
  hear(layer, At::before_forward);
  mix(stage.batch, layer, std::move(x), t, stage.state);
  if (blocks_[std::size_t(layer)].cross)
    attend(stage, layer, t);
  Array<S> y = feed(stage.pass, layer, t, stage.state);
  hear(layer, At::after_forward);
  return y;
}

template <class S>
Array<S> Decoder<S>::feed(const Pass& pass, int layer, BlockTape& t, DecoderState* state) {
  Block& b = blocks_[std::size_t(layer)];
  if (!b.feeds())
    return std::move(t.mixed);
  if (b.feed_streams)
    return feed_streams(pass, layer, t, state);
  const Index rows = t.mixed.rows();
  const Index cols = t.mixed.cols();
  Array<S> y(backend_, rows, cols);
  if (!b.feed_norm.empty()) {
    t.feed_rstd = Array<S>(backend_, rows, 1);
    t.feed_in = Array<S>(backend_, rows, cols);
    b.feed_norm.forward(t.mixed.view(), t.feed_in.view(), t.feed_rstd.view());
  }
  if (b.feed_after.empty()) {
    run_feed(pass, layer, t, y.view(), state);
  } else {
    t.feed_out_rstd = Array<S>(backend_, rows, 1);
    t.feed_out = Array<S>(backend_, rows, cols);
    run_feed(pass, layer, t, t.feed_out.view(), state);
    b.feed_after.forward(t.feed_out.view(), y.view(), t.feed_out_rstd.view());
  }
  rejoin(b.feed_joint, t.mixed.view(), t.feed_in.view(), y.view());
  finish(b, y.view());
  return y;
}

template <class S>
void Decoder<S>::finish(Block& b, View<S> y) {
  if (!b.beside && !late_.empty()) {
    backend_.add(late_.view(), y, 1);
    late_ = {};
  }
  if (!b.scale.empty())
    scale(y, double(b.scale.to_host()(0, 0)));
}
template <class S>
void Decoder<S>::unfinish(Block& b, View<S> dx) {
  if (!b.scale.empty())
    scale(dx, double(b.scale.to_host()(0, 0)));
  if (b.beside || config_->dense_beside != DenseBeside::shortcut)
    return;
  dlate_ = Array<S>::zeros(backend_, dx.rows, dx.cols);
  backend_.add(dx, dlate_.view(), 1);
}

template <class S>
void Decoder<S>::run_feed(const Pass& pass, int layer, BlockTape& t, View<S> y,
                          DecoderState* state) {
  Block& b = blocks_[std::size_t(layer)];
  if (b.beside) {
    const Pass mine = of_layer(pass, layer);
    b.beside->forward({mine, *b.dense, *b.moe, t.dense, t.moe.emplace(pass.batch)}, t.mixed.view(),
                      feed_input(t), y, t.beside, late_);
  } else if (b.moe) {
    Pass mine = of_layer(pass, layer);
    std::optional<MixerPast> past;
    if (state && b.moe->attention())
      mine.past = &past.emplace(MixerPast{*state->feed[std::size_t(layer)], state->start});
    b.moe->forward(mine, feed_input(t), y, t.moe.emplace(pass.batch));
  } else if (b.dense)
    b.dense->forward(pass.batch, feed_input(t), y, t.dense);
  else {
    const TimeSpan time(TimePart::mixer, "mixer");
    t.feed_mixer = run(*b.feed_mixer, pass.batch, feed_input(t), y,
                       state ? state->feed[std::size_t(layer)].get() : nullptr, state);
  }
}

template <class S>
void Decoder<S>::mix(const Batch& batch, int layer, Array<S> x, BlockTape& t, DecoderState* state) {
  Block& b = blocks_[std::size_t(layer)];
  if (!b.mixer) {
    t.mixed = std::move(x);
    return;
  }
  t.x = std::move(x);
  if (b.mixer_streams)
    return mix_streams(batch, layer, t, state);
  const Index rows = t.x.rows();
  const Index cols = t.x.cols();
  t.mixed = Array<S>(backend_, rows, cols);
  if (!b.mixer_norm.empty()) {
    t.rstd = Array<S>(backend_, rows, 1);
    t.normed = Array<S>(backend_, rows, cols);
    b.mixer_norm.forward(t.x.view(), t.normed.view(), t.rstd.view());
  }
  if (b.mixer_after.empty()) {
    run_mixer(batch, layer, t, t.mixed.view(), state);
  } else {
    t.mixer_out_rstd = Array<S>(backend_, rows, 1);
    t.mixer_out = Array<S>(backend_, rows, cols);
    run_mixer(batch, layer, t, t.mixer_out.view(), state);
    b.mixer_after.forward(t.mixer_out.view(), t.mixed.view(), t.mixer_out_rstd.view());
  }
  rejoin(b.mixer_joint, t.x.view(), t.normed.view(), t.mixed.view());
}

template <class S>
void Decoder<S>::rejoin(const Joint& j, View<const S> x, View<const S> normed, View<S> branch) {
  scale(branch, j.beta);
  backend_.add(j.normed ? normed : x, branch, j.normed ? S(j.alpha) : S(1));
}

template <class S>
void Decoder<S>::run_mixer(const Batch& batch, int layer, BlockTape& t, View<S> y,
                           DecoderState* state) {
  const TimeSpan time(TimePart::mixer, "mixer");
  Block& b = blocks_[std::size_t(layer)];
  t.mixer = run(*b.mixer, batch, mixer_input(t), y,
                state ? state->layer[std::size_t(layer)].get() : nullptr, state);
}

// What arrives at the end of a branch: dx, or dx times its factor in `scaled`.
template <class S>
View<const S> Decoder<S>::at_branch(View<const S> dx, const Joint& j, Array<S>& scaled) {
  if (j.beta == 1)
    return dx;
  scaled = Array<S>::zeros(backend_, dx.rows, dx.cols);
  backend_.add(dx, scaled.view(), S(j.beta));
  return scaled.view();
}

template <class S>
void Decoder<S>::rejoin_backward(const Joint& j, Norm<S>& norm, View<const S> x, View<const S> rstd,
                                 Array<S>& part, View<S> dx) {
  if (norm.empty())
    return backend_.add(part.view(), dx, 1);
  if (j.normed)
    backend_.add(dx, part.view(), S(j.alpha));
  norm.backward(part.view(), x, rstd, dx, j.normed ? S(0) : S(1));
}

template <class S>
void Decoder<S>::backward(const Stage& stage, int layer, BlockTape& t, View<S> dx,
                          const GateGradients& gate) {
  const TimeSpan time("layer backward", config_->published_layer(layer));
  Array<S> scaled;
  Block& b = blocks_[std::size_t(layer)];
  unfinish(b, dx);
  if (b.feed_streams)
    feed_streams_backward(stage.pass, layer, t, dx, gate);
  else if (b.feeds())
    feed_backward(stage.pass, layer, t, at_branch(dx, b.feed_joint, scaled), dx, gate);
  t.mixed = {};
  t.feed_in = {};
  t.feed_out = {};
  t.feed_rstd = {};
  t.feed_out_rstd = {};
  t.dense = {};
  t.feed_mixer = {};
  t.beside = {};
  t.feed_stream = {};
  if (t.moe)
    t.moe->release();
  if (b.cross)
    attend_backward(stage, layer, t, at_branch(dx, {.beta = config_->residual_scale}, scaled), dx);
  if (!b.mixer)
    return;
  if (b.mixer_streams)
    return mix_streams_backward(stage.batch, b, t, dx);
  mixer_backward(stage.batch, b, t, at_branch(dx, b.mixer_joint, scaled), dx);
  t.x = {};
  t.normed = {};
  t.mixer_out = {};
  t.mixer_out_rstd = {};
  t.rstd = {};
  t.mixer = {};
}

// Adds to dx, where dy may stand as well: the branch is done with it before.
template <class S>
void Decoder<S>::feed_backward(const Pass& pass, int layer, BlockTape& t, View<const S> dy,
                               View<S> dx, const GateGradients& gate) {
  Block& b = blocks_[std::size_t(layer)];
  Array<S> part(backend_, dx.rows, dx.cols);
  Array<S> dout;
  if (!b.feed_after.empty()) {
    dout = Array<S>(backend_, dx.rows, dx.cols);
    b.feed_after.backward(dy, t.feed_out.view(), t.feed_out_rstd.view(), dout.view(), 0);
    dy = dout.view();
  }
  if (b.beside) {
    const Pass mine = of_layer(pass, layer);
    b.beside->backward({mine, *b.dense, *b.moe, t.dense, *t.moe}, t.beside, t.mixed.view(),
                       feed_input(t), dy, std::as_const(dlate_).view(), part.view(), dx, gate);
    dlate_ = {};
  } else {
    body_backward(pass, layer, t, dy, part.view(), gate);
  }
  rejoin_backward(b.feed_joint, b.feed_norm, t.mixed.view(), t.feed_rstd.view(), part, dx);
}

template <class S>
void Decoder<S>::mixer_backward(const Batch& batch, Block& b, BlockTape& t, View<const S> dy,
                                View<S> dx) {
  Array<S> part(backend_, dx.rows, dx.cols);
  Array<S> dout;
  if (!b.mixer_after.empty()) {
    dout = Array<S>(backend_, dx.rows, dx.cols);
    b.mixer_after.backward(dy, t.mixer_out.view(), t.mixer_out_rstd.view(), dout.view(), 0);
    dy = dout.view();
  }
  {
    const TimeSpan time(TimePart::mixer, "mixer backward");
    b.mixer->backward(batch, *t.mixer, mixer_input(t), dy, part.view());
  }
  rejoin_backward(b.mixer_joint, b.mixer_norm, t.x.view(), t.rstd.view(), part, dx);
}

template <class S>
void Decoder<S>::read_out(Array<S> x, Tape& tape) {
  if (head_streams_) {
    tape.streams = std::move(x);
    head_streams_->read(std::as_const(tape.streams).view(), tape.head_stream);
    tape.last = std::move(tape.head_stream.read);
  } else {
    tape.last = std::move(x);
  }
  tape.normed = Array<S>(backend_, tape.last.rows(), config_->hidden);
  tape.rstd = Array<S>(backend_, tape.last.rows(), 1);
  final_norm_.forward(tape.last.view(), tape.normed.view(), tape.rstd.view());
}
template <class S>
void Decoder<S>::logits(View<const S> normed, View<S> z) const {
  project(backend_, normed, head(), output_bias_, z);
  if (config_->logit_divisor != 1)
    backend_.add(z, z, S(1 / config_->logit_divisor - 1));
  if (config_->logit_cap > 0)
    backend_.softcap(z, config_->logit_cap);
}

template <class S>
Array<S> Decoder<S>::run_layers(const Stage& stage, int first, int last, Array<S> x,
                                const TapeOf& tape_of, const Visit& done) {
  Pass mine = stage.pass;
  mine.gate.on_host = config_->moe.gate_residual;
  Matrix<double> before;  // logits of the MoE layer before
  const Stage own{mine, stage.batch, stage.source, stage.memory, {}, stage.state};
  for (int l = first; l < last; ++l) {
    BlockTape& t = tape_of(l);
    x = forward(own, l, std::move(x), t);
    add_behind(stage.batch, l - first, x.view());
    done(l, t);
    if (t.moe && config_->moe.gate_residual) {
      before = t.moe->routing.logits;
      mine.gate.previous = &before;
    }
  }
  return x;
}

template <class S>
Array<S> Decoder<S>::run_stacks(const Pass& pass, Tape& tape, DecoderState* state,
                                const TapeOf& tape_of, const Visit& done) {
  const int first = config_->encoder_layers;
  Stage stage{.pass = pass, .batch = pass.batch, .state = state};
  if (first > 0) {
    stage.source = &source_of(pass.batch, state);
    if (pass.batch.source)
      encode(pass, tape, tape_of, done);
    stage.memory = tape.source.memory.view();
  }
  check_positions(pass.batch, state);
  Array<S> x = embed(pass.batch, tape);
  if (config_->sinusoidal)
    add_positions(pass.batch, x.view(), state);
  if (config_->streams > 0)
    x = as_streams(backend_, std::as_const(x).view(), config_->streams);
  return run_layers(stage, first, config_->layers, std::move(x), tape_of, done);
}

template <class S>
void Decoder<S>::forward(const Pass& pass, Tape& tape, ReadLosses when) {
  const TimeSpan time("forward");
  hear(of_no_layer, At::before_forward);
  tape.block.clear();
  tape.block.resize(blocks_.size());
  Pass mine = pass;
  mine.layers = {.count = config_->moe_layers(), .losses_follow = true};
  std::vector<MoeTape<S>*> seen;
  Array<S> x = run_stacks(
      mine, tape, nullptr, [&](int l) -> BlockTape& { return tape.block[std::size_t(l)]; },
      [&](int, BlockTape& block) {
        if (block.moe)
          seen.push_back(&*block.moe);
      });
  read_out(std::move(x), tape);
  compare(tape, pass.loss_scale);
  hear(of_no_layer, At::after_forward);
  tape.sums_on_device = MoeLayer<S>::balance_across(pass, seen);
  // a host that routes has waited already
  if (when == ReadLosses::now || tape.sums_on_device.empty())
    read_losses({&tape, 1});
}

template <class S>
void Decoder<S>::compare(Tape& tape, double loss_scale) {
  const TimeSpan time(TimePart::output, "output and loss");
  tape.dlogits = Array<S>(backend_, tape.normed.rows(), config_->vocabulary);
  logits(tape.normed.view(), tape.dlogits.view());
  tape.loss_on_device = Array<S>(backend_, 1, tape.normed.rows());
  Array<S> capped;
  if (config_->logit_cap > 0) {
    capped = Array<S>::zeros(backend_, tape.dlogits.rows(), tape.dlogits.cols());
    backend_.add(tape.dlogits.view(), capped.view(), 1);
  }
  const double scale = tape.targets ? loss_scale / double(tape.targets) : 0;
  backend_.cross_entropy(tape.dlogits.view(), tape.target.view(), tape.loss_on_device.view(),
                         S(scale / config_->logit_divisor), true);
  if (!capped.empty())
    backend_.softcap_backward(capped.view(), config_->logit_cap, tape.dlogits.view());
}

template <class S>
void Decoder<S>::read_losses(std::span<Tape> tapes) {
  Index all = 0;
  for (const Tape& t : tapes)
    all += t.loss_on_device.view().size() + t.sums_on_device.view().size();
  if (all == 0)
    return;
  const TimeSpan time(TimePart::output, "read losses");
  auto together = Array<S>::zeros(backend_, 1, all);
  Index at = 0;
  for (const Tape& t : tapes) {
    for (const Array<S>* part : {&t.loss_on_device, &t.sums_on_device}) {
      if (!part->empty()) {
        backend_.add(part->view(), View<S>{together.view().data + at, part->rows(), part->cols()},
                     1);
        at += part->view().size();
      }
    }
  }
  const Matrix<S> host = together.to_host();
  const S* from = host.data();
  for (Tape& t : tapes) {
    if (!t.loss_on_device.empty())
      from = take_losses(t, from);
  }
}

// Those of one tape, from their copy on the host; returns what follows them there.
template <class S>
const S* Decoder<S>::take_losses(Tape& t, const S* from) {
  t.token_loss = Matrix<S>(1, t.loss_on_device.cols());
  std::copy(from, from + t.loss_on_device.cols(), t.token_loss.data());
  from += t.loss_on_device.cols();
  for (const S v : t.token_loss.flat())
    t.loss += double(v) / double(std::max<Index>(t.targets, 1));
  if (!t.sums_on_device.empty()) {
    std::vector<MoeTape<S>*> seen;
    for (BlockTape& b : t.block) {
      if (b.moe)
        seen.push_back(&*b.moe);
    }
    MoeLayer<S>::read_sums({from, t.sums_on_device.rows(), t.sums_on_device.cols()}, seen);
    from += t.sums_on_device.view().size();
  }
  t.loss_on_device = {};
  t.sums_on_device = {};
  return from;
}

template <class S>
Array<S> Decoder<S>::read_out_backward(Tape& tape) {
  const TimeSpan time(TimePart::output, "output backward");
  Array<S> dx(backend_, tape.last.rows(), config_->hidden);
  Array<S> dnormed(backend_, dx.rows(), dx.cols());
  project_backward(backend_, std::as_const(tape.dlogits).view(), std::as_const(tape.normed).view(),
                   config_->tied ? embedding_ : output_, output_bias_, dnormed.view(), S(0));
  final_norm_.backward(dnormed.view(), tape.last.view(), tape.rstd.view(), dx.view(), 0);
  tape.dlogits = {};
  tape.last = {};
  tape.normed = {};
  tape.rstd = {};
  if (!head_streams_)
    return dx;
  auto all = Array<S>::zeros(backend_, dx.rows(), tape.streams.cols());
  head_streams_->read_backward(std::as_const(tape.streams).view(), tape.head_stream,
                               std::as_const(dx).view(),
                               head_streams_->no_gradient(tape.head_stream), all.view());
  tape.streams = {};
  tape.head_stream = {};
  return all;
}

template <class S>
void Decoder<S>::backward_layers(const Stage& stage, int first, int last, Tape& tape, View<S> dx) {
  Matrix<double> dlogits;  // of the MoE layer below, from the gate residual of the one above
  for (int l = last - 1; l >= first; --l) {
    Pass mine = stage.pass;
    BlockTape& block = tape.block[std::size_t(l)];
    for (int before = l - 1; before >= first && !mine.gate.previous; --before) {
      if (tape.block[std::size_t(before)].moe)
        mine.gate.previous = &tape.block[std::size_t(before)].moe->routing.logits;
    }
    GateGradients gate;
    Matrix<double> dprevious;
    const bool residual = block.moe && blocks_[std::size_t(l)].moe->config().gate_residual;
    if (residual) {
      dprevious = Matrix<double>(mine.gate.previous->rows(), mine.gate.previous->cols());
      gate.dprevious = &dprevious;
    }
    if (block.moe && !dlogits.empty())
      gate.dlogits = &dlogits;
    hear(l, At::before_backward);
    backward({mine, stage.batch, stage.source, stage.memory, stage.dmemory, nullptr}, l, block, dx,
             gate);
    hear(l, At::after_backward);
    if (block.moe)
      dlogits = std::move(dprevious);
  }
}

template <class S>
void Decoder<S>::backward(const Pass& pass, Tape& tape) {
  const TimeSpan time("backward");
  hear(of_no_layer, At::before_backward);
  Array<S> dx = read_out_backward(tape);
  const int first = config_->encoder_layers;
  Stage stage{.pass = pass, .batch = pass.batch};
  Array<S> dmemory;
  if (first > 0) {
    const SourceTape& source = tape.source;
    dmemory = Array<S>::zeros(backend_, source.memory.rows(), source.memory.cols());
    stage.source = &source_of(pass.batch, nullptr);
    stage.memory = source.memory.view();
    stage.dmemory = dmemory.view();
  }
  backward_layers(stage, first, config_->layers, tape, dx.view());
  if (config_->streams > 0)
    dx = sum_of_streams(backend_, std::as_const(dx).view(), config_->streams);
  if (!embedding_norm_.empty()) {
    Array<S> before(backend_, dx.rows(), dx.cols());
    embedding_norm_.backward(dx.view(), tape.embedded.view(), tape.embedded_rstd.view(),
                             before.view(), 0);
    dx = std::move(before);
  }
  signals_backward(std::as_const(dx).view(), tape);
  forget_given(pass.batch, dx.view());
  embed_backward(dx.view(), tape.token, embedding_);
  if (first > 0)
    encode_backward(pass, tape, std::move(dmemory));
  hear(of_no_layer, At::after_backward);
}

template class Decoder<float>;
template class Decoder<double>;

}  // namespace moe
