// The decoder forwards, backwards and without gradients; the three share the block and the loss.
#include "lib/model/decoder.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/model/architecture.h"
#include "lib/model/config.h"
#include "lib/model/linear.h"
#include "lib/model/mixer_type.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/router.h"

namespace moe {
namespace {

constexpr Index rows_of_logits = 1024;  // at once, where no gradient is wanted

void check_batch(const Batch& batch, int vocabulary) {
  const auto word = [&](int id, const char* what, bool ok) {
    if (!ok) {
      throw Error(Exit::input, concat(what, " ", id, " is outside the vocabulary of ", vocabulary))
          .hint("use the tokenizer the model was trained with");
    }
  };
  for (const int id : batch.token)
    word(id, "token", id >= 0 && id < vocabulary);
  for (const int id : batch.target)
    word(id, "target", id >= -1 && id < vocabulary);
  for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
    for (Index t = batch.start[q] + 1; t < batch.start[q + 1]; ++t) {
      if (batch.is_valid(t) && !batch.is_valid(t - 1))
        throw Error(Exit::bug, concat("row ", t, " follows padding inside sequence ", q));
    }
  }
}

}  // namespace

template <class S>
Decoder<S>::Decoder(const ModelConfig& config, Backend<S>& b, Storage experts)
    : config_(std::make_unique<const ModelConfig>(resolved(config))),
      backend_(b),
      shared_(std::make_unique<SharedParts<S>>()) {
  const ModelConfig& c = *config_;
  embedding_ = Parameter<S>(b, "embedding", {c.vocabulary, c.hidden});
  final_norm_ = Norm<S>(b, "final_norm", c.norm, c.hidden, c.norm_eps);
  if (!c.tied)
    output_ = Parameter<S>(b, "output", {c.vocabulary, c.hidden});
  if (c.output_bias)
    output_bias_ = Parameter<S>(b, "output_bias", {c.vocabulary}, ParameterKind::vector);
  build_blocks(experts);
}

template <class S>
Decoder<S>::~Decoder() = default;

template <class S>
void Decoder<S>::build_blocks(Storage experts) {
  const ModelConfig& c = *config_;
  const Architecture shape = architecture_of(c);
  for (LayerMixer<S>& mixer : make_mixers(c, backend_, *shared_)) {
    const std::size_t l = blocks_.size();
    const std::string at = concat("layers.", l, ".");
    Block& block = blocks_.emplace_back();
    build_norms(block, *shape.layers[l].feed, at);
    block.mixer_name = mixer.name;
    block.mixer = std::move(mixer.mixer);
    build_feed(block, *shape.layers[l].feed, experts);
    name_parameters(block, at);
  }
}

template <class S>
void Decoder<S>::build_norms(Block& b, const FeedShape& feed, const std::string& at) {
  const ModelConfig& c = *config_;
  const auto make = [&](const std::string& name) {
    return Norm<S>(backend_, at + name, c.norm, c.hidden, c.norm_eps);
  };
  (c.norm_after ? b.mixer_after : b.mixer_norm) = make("attention_norm");
  (c.norm_after ? b.feed_after : b.feed_norm) = make("feed_norm");
  if (c.norm_both)
    b.mixer_after = make("attention_norm_after");
  if (c.norm_both || (c.moe_norm_after && feed.is_moe()))
    b.feed_after = make("feed_norm_after");
}

template <class S>
void Decoder<S>::build_feed(Block& block, const FeedShape& feed, Storage experts) {
  const ModelConfig& c = *config_;
  if (!feed.is_moe()) {
    block.dense.emplace(backend_, "", c.moe.activation, feed.width, c.hidden);
    return;
  }
  LayerConfig moe = c.moe;
  moe.gate_residual = feed.gate_residual > 0;
  block.moe.emplace(moe, backend_, experts);
  if (auto* table = capability<LearnsFromText>(block.moe->router()))
    table->set_vocabulary(c.vocabulary);
}

template <class S>
void Decoder<S>::name_parameters(Block& block, const std::string& at) {
  const auto name = [](const std::string& prefix, const std::vector<Parameter<S>*>& part) {
    for (Parameter<S>* p : part)
      p->rename(prefix + p->name());
  };
  std::vector<ModelParameter<S>> mixer;
  block.mixer->collect(mixer);
  name(at + block.mixer_name + ".", pointers(mixer));
  std::vector<Parameter<S>*> feed;
  if (block.moe)
    block.moe->collect(feed);
  else
    block.dense->collect(feed);
  name(at + (block.moe ? "moe." : "dense."), feed);
}

template <class S>
std::vector<Parameter<S>*> Decoder<S>::parameters() {
  return pointers(inventory());
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
      return l;
  }
  throw Error(Exit::bug, concat("there is no such MoE layer among ", config_->moe_layers()));
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
  check_batch(batch, config_->vocabulary);
  const Index tokens = batch.tokens();
  Matrix<int> target(1, tokens, -1);
  tape.targets = 0;
  for (Index t = 0; t < Index(batch.target.size()); ++t) {
    if (batch.is_valid(t) && batch.target[std::size_t(t)] >= 0) {
      target(0, t) = batch.target[std::size_t(t)];
      ++tape.targets;
    }
  }
  tape.token = Array<int>(backend_, View<const int>{batch.token.data(), 1, tokens});
  tape.target = Array<int>(backend_, std::as_const(target).view());
  tape.token_loss = Matrix<S>(1, tokens);
  tape.predicted = {};
  tape.loss = 0;
  Array<S> x(backend_, tokens, config_->hidden);
  backend_.embed(embedding_.weight(), tape.token.view(), x.view());
  scale(x.view(), config_->embedding_scale);
  return x;
}

// x -> mixed = x + mixer(norm(x)) -> mixed + feed(norm(mixed)), or with the norms outside
template <class S>
Array<S> Decoder<S>::forward(const Pass& pass, int layer, Array<S> x, BlockTape& t,
                             DecoderState* state) {
  mix(pass.batch, layer, std::move(x), t, state);
  return feed(pass, layer, t);
}

template <class S>
Array<S> Decoder<S>::feed(const Pass& pass, int layer, BlockTape& t) {
  Block& b = blocks_[std::size_t(layer)];
  const Index rows = t.mixed.rows();
  const Index cols = t.mixed.cols();
  Array<S> y(backend_, rows, cols);
  if (!b.feed_norm.empty()) {
    t.feed_rstd = Array<S>(backend_, rows, 1);
    t.feed_in = Array<S>(backend_, rows, cols);
    b.feed_norm.forward(t.mixed.view(), t.feed_in.view(), t.feed_rstd.view());
  }
  if (b.feed_after.empty()) {
    run_feed(pass, layer, t, y.view());
  } else {
    t.feed_out_rstd = Array<S>(backend_, rows, 1);
    t.feed_out = Array<S>(backend_, rows, cols);
    run_feed(pass, layer, t, t.feed_out.view());
    b.feed_after.forward(t.feed_out.view(), y.view(), t.feed_out_rstd.view());
  }
  scale(y.view(), config_->residual_scale);
  backend_.add(t.mixed.view(), y.view(), 1);
  return y;
}

template <class S>
void Decoder<S>::run_feed(const Pass& pass, int layer, BlockTape& t, View<S> y) {
  Block& b = blocks_[std::size_t(layer)];
  if (b.moe)
    b.moe->forward(of_layer(pass, layer), feed_input(t), y, t.moe.emplace(pass.batch));
  else
    b.dense->forward(pass.batch, feed_input(t), y, t.dense);
}

template <class S>
void Decoder<S>::mix(const Batch& batch, int layer, Array<S> x, BlockTape& t, DecoderState* state) {
  Block& b = blocks_[std::size_t(layer)];
  t.x = std::move(x);
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
  scale(t.mixed.view(), config_->residual_scale);
  backend_.add(t.x.view(), t.mixed.view(), 1);
}

template <class S>
void Decoder<S>::run_mixer(const Batch& batch, int layer, BlockTape& t, View<S> y,
                           DecoderState* state) {
  Block& b = blocks_[std::size_t(layer)];
  if (state) {
    MixerPast past{*state->layer[std::size_t(layer)], state->start};
    t.mixer = b.mixer->forward(batch, mixer_input(t), y, &past);
  } else {
    t.mixer = b.mixer->forward(batch, mixer_input(t), y, nullptr);
  }
}

// What arrives at the end of a branch: dx, or dx times the residual scale in `scaled`.
template <class S>
View<const S> Decoder<S>::at_branch(View<const S> dx, Array<S>& scaled) {
  if (config_->residual_scale == 1)
    return dx;
  scaled = Array<S>::zeros(backend_, dx.rows, dx.cols);
  backend_.add(dx, scaled.view(), S(config_->residual_scale));
  return scaled.view();
}

template <class S>
void Decoder<S>::backward(const Pass& pass, int layer, BlockTape& t, View<S> dx,
                          const GateGradients& gate) {
  Array<S> scaled;
  feed_backward(pass, layer, t, at_branch(dx, scaled), dx, gate);
  t.mixed = {};
  t.feed_in = {};
  t.feed_out = {};
  t.feed_rstd = {};
  t.feed_out_rstd = {};
  t.dense = {};
  if (t.moe)
    t.moe->release();
  mixer_backward(pass, blocks_[std::size_t(layer)], t, at_branch(dx, scaled), dx);
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
  if (b.moe)
    b.moe->backward(of_layer(pass, layer), *t.moe, feed_input(t), dy, part.view(), gate);
  else
    b.dense->backward(t.dense, feed_input(t), dy, part.view());
  if (b.feed_norm.empty())
    backend_.add(part.view(), dx, 1);
  else
    b.feed_norm.backward(part.view(), t.mixed.view(), t.feed_rstd.view(), dx, 1);
}

template <class S>
void Decoder<S>::mixer_backward(const Pass& pass, Block& b, BlockTape& t, View<const S> dy,
                                View<S> dx) {
  Array<S> part(backend_, dx.rows, dx.cols);
  Array<S> dout;
  if (!b.mixer_after.empty()) {
    dout = Array<S>(backend_, dx.rows, dx.cols);
    b.mixer_after.backward(dy, t.mixer_out.view(), t.mixer_out_rstd.view(), dout.view(), 0);
    dy = dout.view();
  }
  b.mixer->backward(pass.batch, *t.mixer, mixer_input(t), dy, part.view());
  if (b.mixer_norm.empty())
    backend_.add(part.view(), dx, 1);
  else
    b.mixer_norm.backward(part.view(), t.x.view(), t.rstd.view(), dx, 1);
}

template <class S>
void Decoder<S>::read_out(Array<S> x, Tape& tape) {
  tape.last = std::move(x);
  tape.normed = Array<S>(backend_, tape.last.rows(), config_->hidden);
  tape.rstd = Array<S>(backend_, tape.last.rows(), 1);
  final_norm_.forward(tape.last.view(), tape.normed.view(), tape.rstd.view());
}
template <class S>
void Decoder<S>::logits(View<const S> normed, View<S> z) const {
  project(backend_, normed, head(), output_bias_, z);
  if (config_->logit_divisor != 1)
    backend_.add(z, z, S(1 / config_->logit_divisor - 1));
}

template <class S>
void Decoder<S>::forward(const Pass& pass, Tape& tape, ReadLosses when) {
  Array<S> x = embed(pass.batch, tape);
  tape.block.clear();
  tape.block.resize(blocks_.size());
  Pass mine = pass;
  mine.layers = {.count = config_->moe_layers(), .losses_follow = true};
  mine.gate.on_host = config_->moe.gate_residual;
  std::vector<MoeTape<S>*> seen;
  for (int l = 0; l < config_->layers; ++l) {
    BlockTape& block = tape.block[std::size_t(l)];
    x = forward(mine, l, std::move(x), block, nullptr);
    if (block.moe) {
      mine.gate.previous = &block.moe->routing.logits;
      seen.push_back(&*block.moe);
    }
  }
  read_out(std::move(x), tape);
  compare(tape, pass.loss_scale);
  tape.sums_on_device = MoeLayer<S>::balance_across(pass, seen);
  // a host that routes has waited already
  if (when == ReadLosses::now || tape.sums_on_device.empty())
    read_losses({&tape, 1});
}

template <class S>
void Decoder<S>::compare(Tape& tape, double loss_scale) {
  tape.dlogits = Array<S>(backend_, tape.normed.rows(), config_->vocabulary);
  logits(tape.normed.view(), tape.dlogits.view());
  tape.loss_on_device = Array<S>(backend_, 1, tape.normed.rows());
  const double scale = tape.targets ? loss_scale / double(tape.targets) : 0;
  backend_.cross_entropy(tape.dlogits.view(), tape.target.view(), tape.loss_on_device.view(),
                         S(scale / config_->logit_divisor), true);
}

template <class S>
void Decoder<S>::read_losses(std::span<Tape> tapes) {
  Index all = 0;
  for (const Tape& t : tapes)
    all += t.loss_on_device.view().size() + t.sums_on_device.view().size();
  if (all == 0)
    return;
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
  Array<S> dx(backend_, tape.last.rows(), config_->hidden);
  Array<S> dnormed(backend_, dx.rows(), dx.cols());
  project_backward(backend_, std::as_const(tape.dlogits).view(), std::as_const(tape.normed).view(),
                   config_->tied ? embedding_ : output_, output_bias_, dnormed.view(), S(0));
  final_norm_.backward(dnormed.view(), tape.last.view(), tape.rstd.view(), dx.view(), 0);
  tape.dlogits = {};
  tape.last = {};
  tape.normed = {};
  tape.rstd = {};
  return dx;
}

template <class S>
void Decoder<S>::backward(const Pass& pass, Tape& tape) {
  Array<S> dx = read_out_backward(tape);
  Matrix<double> dlogits;  // of the MoE layer below, from the gate residual of the one above
  for (int l = config_->layers - 1; l >= 0; --l) {
    Pass mine = pass;
    BlockTape& block = tape.block[std::size_t(l)];
    for (int before = l - 1; before >= 0 && !mine.gate.previous; --before) {
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
    backward(mine, l, block, dx.view(), gate);
    if (block.moe)
      dlogits = std::move(dprevious);
  }
  scale(dx.view(), config_->embedding_scale);
  if (!embedding_.grad().empty())
    backend_.embed_backward(dx.view(), tape.token.view(), embedding_.grad());
}

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
    for (const Block& b : blocks_)
      state.layer.push_back(b.mixer->new_state(batch.sequences()));
    state.start.assign(batch.start.size(), 0);
  }
  return grown(batch, state.start);
}

template <class S>
void Decoder<S>::infer(const Pass& pass, Tape& out, const Observe& observe, DecoderState* state,
                       Matrix<S>* last_logits) {
  Array<S> x = embed(pass.batch, out);
  out.block.clear();
  std::vector<Index> after;
  if (state)
    after = begin(pass.batch, *state);
  int place = 0;
  Pass mine = pass;
  mine.layers.losses_follow = true;
  mine.gate.on_host = config_->moe.gate_residual;
  Matrix<double> before;  // logits of the MoE layer before
  for (int l = 0; l < config_->layers; ++l) {
    BlockTape tape;
    x = forward(mine, l, std::move(x), tape, state);
    if (tape.moe && observe) {
      blocks_[std::size_t(l)].moe->fetch_routing(*tape.moe);
      observe(place, *tape.moe, feed_input(tape));
    }
    place += tape.moe.has_value();
    if (tape.moe && config_->moe.gate_residual) {
      before = tape.moe->routing.logits;
      mine.gate.previous = &before;
    }
  }
  if (state)
    state->start = after;
  read_out(std::move(x), out);
  if (out.targets > 0)
    score_targets(out);
  if (last_logits)
    *last_logits = logits_at_end(pass.batch, out);
}

template class Decoder<float>;
template class Decoder<double>;

}  // namespace moe
