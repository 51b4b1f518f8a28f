// The decoder forwards, backwards and without gradients; the three share the block and the loss.
#include "lib/model/decoder.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/model/architecture.h"
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
    : config_(resolved(config)), backend_(b) {
  const ModelConfig& c = config_;
  embedding_ = Parameter<S>(b, "embedding", {c.vocabulary, c.hidden});
  final_norm_ = Norm<S>(b, "final_norm", c.norm, c.hidden, c.norm_eps);
  if (!c.tied)
    output_ = Parameter<S>(b, "output", {c.vocabulary, c.hidden});
  if (c.output_bias)
    output_bias_ = Parameter<S>(b, "output_bias", {c.vocabulary}, ParameterKind::vector);
  if (rotary_of(c.rope, c.rotary_dims(), c.rope_theta).mixed)
    fourier_.emplace(c, b);
  blocks_.reserve(std::size_t(c.layers));
  const Architecture shape = architecture_of(c);
  for (int l = 0; l < c.layers; ++l) {
    const FeedShape& feed = *shape.layers[std::size_t(l)].feed;
    const std::string at = concat("layers.", l, ".");
    blocks_.push_back({Norm<S>(b, at + "attention_norm", c.norm, c.hidden, c.norm_eps),
                       Norm<S>(b, at + "feed_norm", c.norm, c.hidden, c.norm_eps),
                       Attention<S>(c, l, b),
                       {},
                       {}});
    Block& block = blocks_.back();
    if (feed.is_moe()) {
      LayerConfig moe = c.moe;
      moe.gate_residual = feed.gate_residual > 0;
      block.moe.emplace(moe, b, experts);
      if (auto* table = capability<LearnsFromText>(block.moe->router()))
        table->set_vocabulary(c.vocabulary);
    } else {
      block.dense.emplace(b, "", c.moe.activation, feed.width, c.hidden);
    }
    const auto name = [](const std::string& prefix, auto& part) {
      std::vector<Parameter<S>*> mine;
      part.collect(mine);
      for (Parameter<S>* p : mine)
        p->rename(prefix + p->name());
    };
    name(at + "attention.", block.attention);
    if (block.moe)
      name(at + "moe.", *block.moe);
    else
      name(at + "dense.", *block.dense);
  }
}

template <class S>
std::vector<Parameter<S>*> Decoder<S>::parameters() {
  std::vector<Parameter<S>*> all{&embedding_};
  for (Block& b : blocks_) {
    b.attention_norm.collect(all);
    b.attention.collect(all);
    b.feed_norm.collect(all);
    if (b.moe)
      b.moe->collect(all);
    else
      b.dense->collect(all);
  }
  final_norm_.collect(all);
  for (Parameter<S>* p : {&output_, &output_bias_}) {
    if (!p->empty())
      all.push_back(p);
  }
  if (fourier_)
    all.insert(all.end(), {&fourier_->cosine, &fourier_->sine});
  return all;
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
  for (int l = 0; l < config_.layers; ++l) {
    if (blocks_[std::size_t(l)].moe && moe_layer-- == 0)
      return l;
  }
  throw Error(Exit::bug, concat("there is no such MoE layer among ", config_.moe_layers()));
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
  const std::size_t experts = std::size_t(config_.moe.experts);
  const std::size_t layers = std::size_t(config_.moe_layers());
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
  check_batch(batch, config_.vocabulary);
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
  Array<S> x(backend_, tokens, config_.hidden);
  backend_.embed(embedding_.weight(), tape.token.view(), x.view());
  scale(x.view(), config_.embedding_scale);
  return x;
}

// x -> mixed = x + attention(norm(x)) -> mixed + feed(norm(mixed))
template <class S>
Array<S> Decoder<S>::forward(const Pass& pass, int layer, Array<S> x, BlockTape& t,
                             KeyValues<S>* state) {
  Block& b = blocks_[std::size_t(layer)];
  const Index rows = x.rows();
  const Index cols = x.cols();
  const auto fresh = [&] {
    return Array<S>(backend_, rows, cols);
  };
  t.x = std::move(x);
  t.normed = fresh();
  t.rstd = Array<S>(backend_, rows, 1);
  t.mixed = fresh();
  b.attention_norm.forward(t.x.view(), t.normed.view(), t.rstd.view());
  t.attention.fourier = fourier_ ? &*fourier_ : nullptr;
  b.attention.forward(pass.batch, t.normed.view(), t.mixed.view(), t.attention, state, layer);
  scale(t.mixed.view(), config_.residual_scale);
  backend_.add(t.x.view(), t.mixed.view(), 1);
  t.feed_in = fresh();
  t.feed_rstd = Array<S>(backend_, rows, 1);
  b.feed_norm.forward(t.mixed.view(), t.feed_in.view(), t.feed_rstd.view());
  Array<S> y = fresh();
  if (b.moe)
    b.moe->forward(of_layer(pass, layer), t.feed_in.view(), y.view(), t.moe.emplace(pass.batch));
  else
    b.dense->forward(pass.batch, t.feed_in.view(), y.view(), t.dense);
  scale(y.view(), config_.residual_scale);
  backend_.add(t.mixed.view(), y.view(), 1);
  return y;
}

template <class S>
void Decoder<S>::backward(const Pass& pass, int layer, BlockTape& t, View<S> dx,
                          const GateGradients& gate) {
  Block& b = blocks_[std::size_t(layer)];
  Array<S> part(backend_, dx.rows, dx.cols);
  Array<S> scaled;
  const auto branch = [&]() -> View<const S> {  // what arrives at the end of a branch
    if (config_.residual_scale == 1)
      return dx;
    scaled = Array<S>::zeros(backend_, dx.rows, dx.cols);
    backend_.add(dx, scaled.view(), S(config_.residual_scale));
    return scaled.view();
  };
  if (b.moe)
    b.moe->backward(of_layer(pass, layer), *t.moe, t.feed_in.view(), branch(), part.view(), gate);
  else
    b.dense->backward(t.dense, t.feed_in.view(), branch(), part.view());
  b.feed_norm.backward(part.view(), t.mixed.view(), t.feed_rstd.view(), dx, 1);
  t.mixed = {};
  t.feed_in = {};
  t.feed_rstd = {};
  t.dense = {};
  if (t.moe)
    t.moe->release();
  b.attention.backward(pass.batch, t.attention, t.normed.view(), branch(), part.view());
  b.attention_norm.backward(part.view(), t.x.view(), t.rstd.view(), dx, 1);
  t.x = {};
  t.normed = {};
  t.rstd = {};
  t.attention = {};
}

template <class S>
void Decoder<S>::read_out(Array<S> x, Tape& tape) {
  tape.last = std::move(x);
  tape.normed = Array<S>(backend_, tape.last.rows(), config_.hidden);
  tape.rstd = Array<S>(backend_, tape.last.rows(), 1);
  final_norm_.forward(tape.last.view(), tape.normed.view(), tape.rstd.view());
}
template <class S>
void Decoder<S>::logits(View<const S> normed, View<S> z) const {
  project(backend_, normed, head(), output_bias_, z);
  if (config_.logit_divisor != 1)
    backend_.add(z, z, S(1 / config_.logit_divisor - 1));
}

template <class S>
void Decoder<S>::forward(const Pass& pass, Tape& tape, ReadLosses when) {
  Array<S> x = embed(pass.batch, tape);
  tape.block.clear();
  tape.block.resize(blocks_.size());
  Pass mine = pass;
  mine.layers = {.count = config_.moe_layers(), .losses_follow = true};
  mine.gate.on_host = config_.moe.gate_residual;
  std::vector<MoeTape<S>*> seen;
  for (int l = 0; l < config_.layers; ++l) {
    BlockTape& block = tape.block[std::size_t(l)];
    x = forward(mine, l, std::move(x), block, nullptr);
    if (block.moe) {
      mine.gate.previous = &block.moe->routing.logits;
      seen.push_back(&*block.moe);
    }
  }
  read_out(std::move(x), tape);
  tape.dlogits = Array<S>(backend_, tape.normed.rows(), config_.vocabulary);
  logits(tape.normed.view(), tape.dlogits.view());
  Array<S> loss(backend_, 1, tape.normed.rows());
  const double scale = tape.targets ? pass.loss_scale / double(tape.targets) : 0;
  backend_.cross_entropy(tape.dlogits.view(), tape.target.view(), loss.view(),
                         S(scale / config_.logit_divisor), true);
  tape.sums_on_device = MoeLayer<S>::balance_across(pass, seen);
  tape.loss_on_device = std::move(loss);
  // a host that routes has waited already
  if (when == ReadLosses::now || tape.sums_on_device.empty())
    read_losses({&tape, 1});
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
    if (t.loss_on_device.empty())
      continue;
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
  }
}

template <class S>
void Decoder<S>::backward(const Pass& pass, Tape& tape) {
  Array<S> dx(backend_, tape.last.rows(), config_.hidden);
  {
    Array<S> dnormed(backend_, dx.rows(), dx.cols());
    project_backward(backend_, std::as_const(tape.dlogits).view(),
                     std::as_const(tape.normed).view(), config_.tied ? embedding_ : output_,
                     output_bias_, dnormed.view(), S(0));
    final_norm_.backward(dnormed.view(), tape.last.view(), tape.rstd.view(), dx.view(), 0);
  }
  tape.dlogits = {};
  tape.last = {};
  tape.normed = {};
  tape.rstd = {};
  Matrix<double> dlogits;  // of the MoE layer below, from the gate residual of the one above
  for (int l = config_.layers - 1; l >= 0; --l) {
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
  scale(dx.view(), config_.embedding_scale);
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

template <class S>
void Decoder<S>::infer(const Pass& pass, Tape& out, const Observe& observe, KeyValues<S>* state,
                       Matrix<S>* last_logits) {
  Array<S> x = embed(pass.batch, out);
  out.block.clear();
  if (state && state->k.empty()) {
    state->k.resize(blocks_.size());
    state->v.resize(blocks_.size());
    state->start.assign(pass.batch.start.size(), 0);
  }
  int place = 0;
  Pass mine = pass;
  mine.layers.losses_follow = true;
  mine.gate.on_host = config_.moe.gate_residual;
  Matrix<double> before;  // logits of the MoE layer before
  for (int l = 0; l < config_.layers; ++l) {
    BlockTape tape;
    x = forward(mine, l, std::move(x), tape, state);
    if (tape.moe && observe) {
      blocks_[std::size_t(l)].moe->fetch_routing(*tape.moe);
      observe(place, *tape.moe, tape.feed_in.view());
    }
    place += tape.moe.has_value();
    if (tape.moe && config_.moe.gate_residual) {
      before = tape.moe->routing.logits;
      mine.gate.previous = &before;
    }
  }
  if (state)
    state->start = grown(pass.batch, state->start);
  read_out(std::move(x), out);
  if (out.targets > 0) {
    out.predicted = Matrix<int>(1, out.normed.rows());
    for (Index first = 0; first < out.normed.rows(); first += rows_of_logits) {
      Array<S> z(backend_, std::min(rows_of_logits, out.normed.rows() - first), config_.vocabulary);
      logits(out.normed.view().slice(first, z.rows()), z.view());
      losses(out, z.view(), first);
    }
  }
  if (!last_logits)
    return;
  auto last = Array<S>::zeros(backend_, pass.batch.sequences(), config_.hidden);
  for (Index q = 0; q < last.rows(); ++q) {
    Index end = pass.batch.start[std::size_t(q) + 1];
    while (end > pass.batch.start[std::size_t(q)] && !pass.batch.is_valid(end - 1))
      --end;
    if (end > pass.batch.start[std::size_t(q)])
      backend_.add(out.normed.view().slice(end - 1, 1), last.view().slice(q, 1), 1);
  }
  Array<S> z(backend_, last.rows(), config_.vocabulary);
  logits(last.view(), z.view());
  *last_logits = z.to_host();
}

template class Decoder<float>;
template class Decoder<double>;

}  // namespace moe
