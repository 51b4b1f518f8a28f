#include "lib/model/mixers/compressed_attention.h"

#include <algorithm>
#include <cmath>

#include "lib/core/batch.h"
#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/linear.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/key_compressor.h"
#include "lib/model/mixers/selected_attention.h"

namespace moe {
namespace {

// Keys of the sequences so far that a window still reaches, and what compressed ones keep.
template <class S>
struct CompressedState final : MixerState {
  Array<S> keys;             // of all sequences end to end
  std::vector<Index> start;  // (Q+1) of them
  CompressorState<S> entries, index;
};

template <class S>
struct CompressedTape final : MixerTape {
  Array<S> latent, latent_rstd, latent_normed;
  Array<S> q_raw, q_rstd, q, k_raw, k_rstd, k;
  Array<S> out, lse;     // of all keys together
  Array<S> turned, low;  // out turned back, and what W_oa makes of it
  Array<int> position;
  int furthest = 0;
  CompressedKeys<S> entries;
  ChosenKeys chosen;
};

// Which of the rows (T*groups, n) a group's block of W_oa takes: those of its number.
template <class S>
Plan plan_of_groups(Backend<S>& b, Index rows, int groups) {
  Matrix<int> group(rows * groups, 1);
  for (Index r = 0; r < group.rows(); ++r)
    group(r, 0) = int(r % groups);
  const Array<int> there(b, std::as_const(group).view());
  return b.plan(there.view(), groups);
}

// Two softmaxes over parts of the keys of a head become one: `out`, of the part with far_lse, takes
// in `near`; returns the logarithm of the sum of both.
template <class S>
S join_head(std::span<const S> near, S near_lse, std::span<S> out, S far_lse) {
  const auto a = double(near_lse);
  const auto b = double(far_lse);
  const double most = std::max(a, b);
  const double both = most + std::log(std::exp(a - most) + std::exp(b - most));
  const double share = std::exp(b - both);
  const double rest = std::exp(a - both);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = S(share * double(out[i]) + rest * double(near[i]));
  return S(both);
}

template <class S>
class CompressedAttention final : public Mixer<S> {
 public:
  using Tape = CompressedTape<S>;

  CompressedAttention(const MixerPlace<S>& at, const CompressedOptions& options)
      : config_(at.config),
        o_(options.resolved(at.config)),
        side_(at.backend),
        backend_(at.backend),
        rotary_(rotary_of(o_.rope, o_.rope_dim, o_.theta)) {
    const Index h = config_.hidden;
    const Index wide = Index(o_.heads) * o_.head_dim;
    const auto vector = [&](const char* name, Index n) {
      return Parameter<S>(backend_, name, {n}, ParameterKind::vector);
    };
    q_a_ = Parameter<S>(backend_, "q_a", {o_.q_rank, h});
    q_norm_ = vector("q_norm", o_.q_rank);
    q_b_ = Parameter<S>(backend_, "q_b", {wide, o_.q_rank});
    kv_ = Parameter<S>(backend_, "kv", {o_.head_dim, h});
    kv_norm_ = vector("kv_norm", o_.head_dim);
    sinks_ = vector("sinks", o_.heads);
    o_a_ = Parameter<S>(backend_, "o_a", {Index(o_.groups) * o_.o_rank, wide / o_.groups});
    o_b_ = Parameter<S>(backend_, "o_b", {h, Index(o_.groups) * o_.o_rank});
    const Matrix<S> ones(1, o_.head_dim, S(1));
    ones_ = Array<S>(backend_, ones.view());
    if (o_.rate > 0)
      entries_ = compressor("entry_", o_.head_dim);
    if (o_.topk == 0)
      return;
    index_ = compressor("index_", o_.index_dim);
    index_q_ = Parameter<S>(backend_, "index_q", {Index(o_.index_heads) * o_.index_dim, o_.q_rank});
    index_weights_ = Parameter<S>(backend_, "index_weights", {o_.index_heads, h});
    index_.freeze();
    index_q_.freeze();
    index_weights_.freeze();
  }

  void collect(std::vector<ModelParameter<S>>& all) override {
    const auto add = [&](Parameter<S>& p, const Start& start, const char* published) {
      all.push_back(
          {.parameter = &p, .start = start, .published = std::string("attn.") + published});
    };
    const auto matrix = [&](Parameter<S>& p, const char* published) {
      const MatrixRole role = &p == &o_b_ ? MatrixRole::mixer_output : MatrixRole::mixer;
      add(p, matrix_start(config_, role, p.dims().back()), published);
    };
    matrix(q_a_, "wq_a.weight");
    add(q_norm_, {.value = 1}, "q_norm.weight");
    matrix(q_b_, "wq_b.weight");
    matrix(kv_, "wkv.weight");
    add(kv_norm_, {.value = 1}, "kv_norm.weight");
    add(sinks_, {}, "attn_sink");
    matrix(o_a_, "wo_a.weight");
    matrix(o_b_, "wo_b.weight");
    if (o_.rate > 0)
      entries_.collect(config_, "attn.compressor.", all);
    if (o_.topk == 0)
      return;
    index_.collect(config_, "attn.indexer.compressor.", all);
    matrix(index_q_, "indexer.wq_b.weight");
    matrix(index_weights_, "indexer.weights_proj.weight");
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto state = std::make_unique<CompressedState<S>>();
    state->start.assign(std::size_t(sequences) + 1, 0);
    state->entries.sequence.resize(std::size_t(sequences));
    state->index.sequence.resize(std::size_t(sequences));
    return state;
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<Tape>();
    Tape& t = *tape;
    auto* state = past ? &static_cast<CompressedState<S>&>(past->state) : nullptr;
    const Matrix<int> at = positions(batch, past ? past->start : std::span<const Index>{});
    t.position = Array<int>(backend_, at.view());
    t.furthest = at.empty() ? 0 : std::ranges::max(at.flat());
    queries(x, t);
    keys(x, t);
    attend_window(batch, t, state);
    if (o_.rate > 0) {
      t.entries = entries_.forward(batch.start, x, state ? &state->entries : nullptr);
      choose(batch, x, at, t, state);
      attend_entries(batch, t);
    }
    if (t.out.rows() > 0)
      backend_.attention_sink(sinks_.value(), t.out.view(), t.lse.view());
    put_out(t, y);
    return tape;
  }

  void backward(const Batch& batch, const MixerTape& tape, View<const S> x, View<const S> dy,
                View<S> dx) override {
    const auto& t = static_cast<const Tape&>(tape);
    const Array<S> dout = output_backward(t, dy);
    if (!sinks_.grad().empty()) {
      backend_.attention_sink_backward(sinks_.value(), t.out.view(), t.lse.view(), dout.view(),
                                       sinks_.grad());
    }
    Array<S> dq(backend_, x.rows, t.q.cols());
    Array<S> dk(backend_, x.rows, t.k.cols());
    Array<S> dv(backend_, x.rows, t.k.cols());
    backend_.attention_backward(t.q.view(), t.k.view(), t.k.view(), t.out.view(), t.lse.view(),
                                dout.view(), window_shape(batch.start, batch.start), dq.view(),
                                dk.view(), dv.view());
    backend_.add(std::as_const(dv).view(), dk.view(), 1);
    Array<S> dentry;
    if (t.entries.entry.rows() > 0)
      dentry = entries_backward(batch, t, dout, dq);
    keys_backward(t, x, dk, dx);
    queries_backward(t, x, dq, dx);
    if (!dentry.empty())
      entries_.backward(t.entries, x, std::move(dentry), dx);
  }

 private:
  KeyCompressor<S> compressor(const std::string& prefix, int dim) const {
    return {
        side_,  {o_.rate, dim, o_.rope_dim, o_.overlap}, config_.hidden, prefix, config_.norm_eps,
        rotary_};
  }
  AttentionShape shape(std::span<const Index> queries, std::span<const Index> keys) const {
    AttentionShape a;
    a.heads = o_.heads;
    a.kv_heads = 1;
    a.head_dim = o_.head_dim;
    a.scale = 1 / std::sqrt(double(o_.head_dim));
    a.query_start = queries;
    a.key_start = keys;
    return a;
  }
  AttentionShape window_shape(std::span<const Index> queries, std::span<const Index> keys) const {
    AttentionShape a = shape(queries, keys);
    a.window = o_.window;
    return a;
  }
  void turn(View<S> heads, int dim, const Tape& t, bool back) const {
    backend_.rope(heads, rotary_.rotation(dim, dim - o_.rope_dim, true, t.furthest),
                  t.position.view(), back);
  }
  // rows of x times w, their norm by `by` in y
  void normed_product(View<const S> x, const Parameter<S>& w, View<const S> by, Array<S>& raw,
                      Array<S>& rstd, Array<S>& y) const {
    raw = Array<S>(backend_, x.rows, w.value().rows);
    y = Array<S>(backend_, x.rows, raw.cols());
    rstd = Array<S>(backend_, x.rows, raw.cols() / by.cols);
    backend_.linear(x, w.weight(), raw.view(), 0);
    backend_.norm(raw.view(), by, config_.norm_eps, y.view(), rstd.view());
  }
  void queries(View<const S> x, Tape& t) const {
    normed_product(x, q_a_, q_norm_.value(), t.latent, t.latent_rstd, t.latent_normed);
    normed_product(t.latent_normed.view(), q_b_, ones_.view(), t.q_raw, t.q_rstd, t.q);
    turn(t.q.view(), o_.head_dim, t, false);
  }
  void keys(View<const S> x, Tape& t) const {
    normed_product(x, kv_, kv_norm_.value(), t.k_raw, t.k_rstd, t.k);
    turn(t.k.view(), o_.head_dim, t, false);
  }
  void queries_backward(const Tape& t, View<const S> x, Array<S>& dq, View<S> dx) {
    Parameter<S> none;
    turn(dq.view(), o_.head_dim, t, true);
    Array<S> draw(backend_, x.rows, dq.cols());
    backend_.norm_backward(dq.view(), t.q_raw.view(), ones_.view(), t.q_rstd.view(), draw.view(),
                           {}, 0);
    Array<S> dnormed(backend_, x.rows, t.latent.cols());
    project_backward(backend_, std::as_const(draw).view(), t.latent_normed.view(), q_b_, none,
                     dnormed.view(), S(0));
    Array<S> dlatent(backend_, x.rows, t.latent.cols());
    backend_.norm_backward(dnormed.view(), t.latent.view(), q_norm_.value(), t.latent_rstd.view(),
                           dlatent.view(), q_norm_.grad(), 0);
    project_backward(backend_, std::as_const(dlatent).view(), x, q_a_, none, dx, S(1));
  }
  // sets dx
  void keys_backward(const Tape& t, View<const S> x, Array<S>& dk, View<S> dx) {
    Parameter<S> none;
    turn(dk.view(), o_.head_dim, t, true);
    Array<S> draw(backend_, x.rows, dk.cols());
    backend_.norm_backward(dk.view(), t.k_raw.view(), kv_norm_.value(), t.k_rstd.view(),
                           draw.view(), kv_norm_.grad(), 0);
    project_backward(backend_, std::as_const(draw).view(), x, kv_, none, dx, S(0));
  }

  void attend_window(const Batch& batch, Tape& t, CompressedState<S>* state) const {
    t.out = Array<S>(backend_, t.q.rows(), t.q.cols());
    t.lse = Array<S>(backend_, t.q.rows(), o_.heads);
    if (!state) {
      return backend_.attention(t.q.view(), t.k.view(), t.k.view(),
                                window_shape(batch.start, batch.start), t.out.view(), t.lse.view());
    }
    append(batch, std::as_const(t.k).view(), *state);
    backend_.attention(t.q.view(), std::as_const(state->keys).view(),
                       std::as_const(state->keys).view(), window_shape(batch.start, state->start),
                       t.out.view(), t.lse.view());
  }
  // Keys that no window of a later row reaches are left behind.
  void append(const Batch& batch, View<const S> fresh, CompressedState<S>& state) const {
    std::vector<Index> kept;
    std::vector<Index> after{0};
    for (std::size_t q = 0; q + 1 < state.start.size(); ++q) {
      const Index before = state.start[q + 1] - state.start[q];
      kept.push_back(o_.window > 0 ? std::min<Index>(before, o_.window - 1) : before);
      after.push_back(after.back() + kept.back() + batch.start[q + 1] - batch.start[q]);
    }
    auto all = Array<S>::zeros(backend_, after.back(), fresh.cols);
    for (std::size_t q = 0; q < kept.size(); ++q) {
      if (kept[q] > 0) {
        backend_.add(std::as_const(state.keys).view().slice(state.start[q + 1] - kept[q], kept[q]),
                     all.view().slice(after[q], kept[q]), 1);
      }
      const Index added = batch.start[q + 1] - batch.start[q];
      if (added > 0)
        backend_.add(fresh.slice(batch.start[q], added),
                     all.view().slice(after[q] + kept[q], added), 1);
    }
    state.keys = std::move(all);
    state.start = std::move(after);
  }

  // Of the entries whose windows have ended at a query, all or those that the indexer finds best.
  void choose(const Batch& batch, View<const S> x, const Matrix<int>& at, Tape& t,
              CompressedState<S>* state) const {
    std::vector<Index> count;
    std::vector<Index> first;
    for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
      for (Index r = batch.start[q]; r < batch.start[q + 1]; ++r) {
        count.push_back((at(0, r) + 1) / o_.rate);
        first.push_back(t.entries.start[q]);
      }
    }
    if (o_.topk > 0) {
      const CompressedKeys<S> keys =
          index_.forward(batch.start, x, state ? &state->index : nullptr);
      t.chosen = choose_by_index(x, t, keys, first, count);
      return;
    }
    for (const Index n : count) {
      std::vector<int>& all = t.chosen.of_query.emplace_back();
      for (int e = 0; e < n; ++e)
        all.push_back(e);
    }
  }
  ChosenKeys choose_by_index(View<const S> x, const Tape& t, const CompressedKeys<S>& keys,
                             const std::vector<Index>& first,
                             const std::vector<Index>& count) const {
    Array<S> q(backend_, x.rows, index_q_.value().rows);
    backend_.linear(t.latent_normed.view(), index_q_.weight(), q.view(), 0);
    turn(q.view(), o_.index_dim, t, false);
    const Array<S> weight = side_.product(x, index_weights_);
    const HostNumbers<S> there = side_.read(std::as_const(q).view());
    return choose_keys<S>({o_.index_heads, o_.index_dim, o_.topk}, there.view, weight.view(),
                          keys.entry.view(), first, count);
  }

  // One softmax over the window and the chosen entries: both parts come together by their sums.
  void attend_entries(const Batch& batch, Tape& t) const {
    if (t.entries.entry.rows() == 0)
      return;
    Matrix<S> out(t.out.rows(), t.out.cols());
    Matrix<S> lse(t.lse.rows(), t.lse.cols());
    const HostNumbers<S> q = side_.read(std::as_const(t.q).view());
    const View<const S> entry = std::as_const(t.entries.entry).view();
    selected_attention<S>(q.view, entry, entry, shape(batch.start, t.entries.start), t.chosen,
                          out.view(), lse.view());
    const HostNumbers<S> near = side_.read(std::as_const(t.out).view());
    const HostNumbers<S> near_lse = side_.read(std::as_const(t.lse).view());
    for_rows(out.rows(), [&](Index r) {
      const std::size_t d = std::size_t(o_.head_dim);
      for (Index h = 0; h < o_.heads; ++h) {
        lse(r, h) = join_head<S>(near.view.row(r).subspan(h * d, d), near_lse(r, h),
                                 out.row(r).subspan(h * d, d), lse(r, h));
      }
    });
    t.out.set(std::as_const(out).view());
    t.lse.set(std::as_const(lse).view());
  }
  // Adds to dq; returns the gradient by the entries.
  Array<S> entries_backward(const Batch& batch, const Tape& t, const Array<S>& dout,
                            Array<S>& dq) const {
    const View<const S> entry = t.entries.entry.view();
    Matrix<S> own(t.q.rows(), t.q.cols());
    Array<S> dentry = side_.array(entry.rows, entry.cols);
    Matrix<S> dvalue(entry.rows, entry.cols);
    selected_attention_backward<S>(
        side_.read(t.q.view()).view, entry, entry, side_.read(t.out.view()).view,
        side_.read(t.lse.view()).view, side_.read(dout.view()).view,
        shape(batch.start, t.entries.start), t.chosen, own.view(), dentry.view(), dvalue.view());
    const Array<S> there(backend_, std::as_const(own).view());
    backend_.add(there.view(), dq.view(), 1);
    side_.host().add(std::as_const(dvalue).view(), dentry.view(), 1);
    return dentry;
  }

  // a (T, groups*n) as rows (T*groups, n)
  template <class V>
  View<V> by_group(View<V> a) const {
    return {a.data, a.rows * o_.groups, a.cols / o_.groups};
  }
  void put_out(Tape& t, View<S> y) const {
    t.turned = Array<S>::zeros(backend_, t.out.rows(), t.out.cols());
    backend_.add(t.out.view(), t.turned.view(), 1);
    turn(t.turned.view(), o_.head_dim, t, true);
    t.low = Array<S>(backend_, t.out.rows(), o_b_.value().cols);
    const Plan plan = plan_of_groups(backend_, t.out.rows(), o_.groups);
    Array<S> in(backend_, plan.slots, o_a_.value().cols);
    Array<S> out(backend_, plan.slots, o_.o_rank);
    backend_.dispatch(by_group(std::as_const(t.turned).view()), plan, in.view());
    backend_.grouped_linear(in.view(), o_a_.weight(), plan, out.view(), 0);
    backend_.combine(out.view(), plan, {}, by_group(t.low.view()), 0);
    backend_.linear(t.low.view(), o_b_.weight(), y, 0);
  }
  // the gradient by what attention put out
  Array<S> output_backward(const Tape& t, View<const S> dy) {
    Parameter<S> none;
    Array<S> dlow(backend_, dy.rows, t.low.cols());
    project_backward(backend_, dy, t.low.view(), o_b_, none, dlow.view(), S(0));
    const Plan plan = plan_of_groups(backend_, dy.rows, o_.groups);
    Array<S> in(backend_, plan.slots, o_a_.value().cols);
    Array<S> dslots(backend_, plan.slots, o_.o_rank);
    backend_.dispatch(by_group(std::as_const(dlow).view()), plan, dslots.view());
    if (!o_a_.grad().empty()) {
      backend_.dispatch(by_group(t.turned.view()), plan, in.view());
      backend_.grouped_linear_dw(dslots.view(), in.view(), plan, o_a_.grad());
    }
    backend_.grouped_linear_dx(dslots.view(), o_a_.weight(), plan, in.view(), 0);
    Array<S> dout(backend_, dy.rows, t.out.cols());
    backend_.combine(in.view(), plan, {}, by_group(dout.view()), 0);
    turn(dout.view(), o_.head_dim, t, false);
    return dout;
  }

  const ModelConfig& config_;
  const CompressedOptions o_;
  HostSide<S> side_;
  Backend<S>& backend_;
  Rotary rotary_;
  Parameter<S> q_a_, q_norm_, q_b_, kv_, kv_norm_, sinks_, o_a_, o_b_, index_q_, index_weights_;
  KeyCompressor<S> entries_, index_;
  Array<S> ones_;
};

// What its products and norms leave on the tape, of a token.
Count tape_of(const CompressedOptions& o) {
  const Count wide = Count(o.heads) * o.head_dim;
  const Count low = Count(o.groups) * o.o_rank;
  // latent rows, queries, the key, outputs, sums; position
  Count out = 2 * Count(o.q_rank) + 1 + 2 * wide + o.heads + 2 * Count(o.head_dim) + 1 + 2 * wide +
              o.heads + low + 1;
  if (o.rate > 0)
    out += 2 * Count(o.head_dim) * (o.overlap ? 2 : 1) + (2 * Count(o.head_dim)) / o.rate + 1;
  return out + o.topk;
}

std::vector<WeightPiece> pieces_of(const CompressedOptions& o, Count hidden) {
  const Count wide = Count(o.heads) * o.head_dim;
  const Count low = Count(o.groups) * o.o_rank;
  PieceList own;
  own.matrix(ModelPart::attention, o.q_rank, hidden);
  own.matrix(ModelPart::attention, wide, o.q_rank);
  own.matrix(ModelPart::attention, o.head_dim, hidden);
  own.matrix(ModelPart::attention, low, wide / o.groups);
  own.matrix(ModelPart::attention, hidden, low);
  own.vector(ModelPart::attention, o.q_rank + o.head_dim + o.heads);
  const auto compressor = [&](Count dim, MovedBy moved) {
    const Count cols = dim * (o.overlap ? 2 : 1);
    own.add({ModelPart::attention, cols, hidden, 2, 2, true, moved});
    own.add({ModelPart::attention, 1, o.rate * cols + dim, 1, 1, false, moved});
  };
  if (o.rate > 0)
    compressor(o.head_dim, MovedBy::gradient);
  if (o.topk > 0) {
    compressor(o.index_dim, MovedBy::nothing);
    own.add({ModelPart::attention, Count(o.index_heads) * o.index_dim, o.q_rank, 1, 1, true,
             MovedBy::nothing});
    own.add({ModelPart::attention, o.index_heads, hidden, 1, 1, true, MovedBy::nothing});
  }
  return own.all;
}

MixerShape shape_of(const CompressedOptions& o, Count hidden) {
  MixerShape m;
  m.kind = MixerKind::compressed;
  m.heads = o.heads;
  m.kv_heads = 1;
  m.head_dim = o.head_dim;
  m.q_rank = o.q_rank;
  m.rope = o.rope_dim;
  m.window = o.window;
  m.rate = o.rate;
  m.index_topk = o.topk;
  m.index_heads = o.topk > 0 ? o.index_heads : 0;
  m.index_dim = o.topk > 0 ? o.index_dim : 0;
  m.own = pieces_of(o, hidden);
  m.tape_numbers = tape_of(o);
  m.backward_numbers = 5 * m.heads * m.head_dim + 2 * m.head_dim + 2 * o.groups * o.o_rank;
  return m;
}

class CompressedType final : public MixerType {
 public:
  explicit CompressedType(CompressedOptions o) : options_(std::move(o)) {}
  std::unique_ptr<Mixer<float>> make(const MixerPlace<float>& at) const override {
    return std::make_unique<CompressedAttention<float>>(at, options_);
  }
  std::unique_ptr<Mixer<double>> make(const MixerPlace<double>& at) const override {
    return std::make_unique<CompressedAttention<double>>(at, options_);
  }
  MixerShape shape(const ModelConfig& c, int) const override {
    return shape_of(options_.resolved(c), c.hidden);
  }

 private:
  CompressedOptions options_;
};

void refuse(bool when, const std::string& what, const std::string& hint) {
  if (when)
    throw Error(Exit::usage, "compressed_attention: " + what).hint(hint);
}

// What sizes cannot be, with all of them filled in.
void check(const CompressedOptions& o) {
  refuse((Index(o.heads) * o.head_dim) % o.groups != 0,
         concat(o.heads, " heads of ", o.head_dim, " numbers do not fall into groups=", o.groups),
         "groups=1, or a divisor of the heads");
  refuse(o.rope_dim % 2 != 0 || o.rope_dim > o.head_dim,
         concat("rope_dim=", o.rope_dim, " of a head of ", o.head_dim,
                " numbers would be turned, and they are turned in pairs"),
         "an even rope_dim within the head");
  refuse(o.rate == 0 && (o.overlap || o.topk > 0),
         "overlap and topk speak of entries, and rate is 0, which makes none", "rate=4");
  refuse(o.topk == 0 && (o.index_heads > 0 || o.index_dim > 0),
         "index_heads and index_dim belong to an indexer, and topk is 0", "topk=16");
  refuse(o.topk > 0 && o.index_dim < o.rope_dim,
         concat("index_dim=", o.index_dim, " holds less than the ", o.rope_dim,
                " numbers that are turned"),
         concat("index_dim=", o.rope_dim));
  refuse(o.rope == rope_none || rotary_of(o.rope, o.rope_dim, o.theta).mixed,
         concat("rope=", o.rope, " is no rule that turns pairs"), "rope=default");
}

}  // namespace

CompressedOptions::CompressedOptions(Spec& s)
    : heads(s.get("heads", 0, 0)),
      head_dim(s.get("head_dim", 0, 0)),
      q_rank(s.get("q_rank", 0, 0)),
      o_rank(s.get("o_rank", 0, 0)),
      rope_dim(s.get("rope_dim", 0, 0)),
      window(s.get("window", 0, 0)),
      groups(s.get("groups", 1, 1)),
      rate(s.get("rate", 0, 0)),
      overlap(s.get("overlap", false)),
      topk(s.get("topk", 0, 0)),
      index_heads(s.get("index_heads", 0, 0)),
      index_dim(s.get("index_dim", 0, 0)),
      theta(s.get("theta", 0.0, 0.0)),
      rope(s.get("rope", "default")) {}

std::string CompressedOptions::text() const {
  Spec out("compressed_attention");
  const auto add = [&](const char* key, const auto& value) {
    out.set(key, concat(value));
  };
  add("heads", heads);
  add("head_dim", head_dim);
  add("q_rank", q_rank);
  add("o_rank", o_rank);
  add("rope_dim", rope_dim);
  add("window", window);
  add("groups", groups);
  add("rate", rate);
  add("overlap", int(overlap));
  add("topk", topk);
  add("index_heads", index_heads);
  add("index_dim", index_dim);
  add("theta", theta);
  add("rope", rope);
  return out.given_text();
}

CompressedOptions CompressedOptions::resolved(const ModelConfig& c) const {
  CompressedOptions o = *this;
  const auto fill = [](int& value, int usual) {
    value = value == 0 ? std::max(usual, 1) : value;
  };
  fill(o.heads, c.heads);
  fill(o.head_dim, c.head_dim);
  fill(o.q_rank, c.hidden / 4);
  fill(o.o_rank, c.hidden / 4);
  fill(o.rope_dim, std::max(2, o.head_dim / 4 * 2));
  if (o.window == 0)
    o.window = c.window;
  if (o.theta == 0)
    o.theta = c.rope_theta;
  if (o.topk > 0) {
    fill(o.index_heads, o.heads);
    fill(o.index_dim, o.head_dim);
  }
  check(o);
  return o;
}

std::unique_ptr<MixerType> make_compressed_attention_mixer(Spec& s) {
  return std::make_unique<CompressedType>(CompressedOptions(s));
}

}  // namespace moe
