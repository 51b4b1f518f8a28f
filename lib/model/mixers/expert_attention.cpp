#include "lib/model/mixers/expert_attention.h"

#include <algorithm>
#include <cmath>

#include "lib/core/batch.h"
#include "lib/model/linear.h"
#include "lib/model/mixers/attention.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

// Choices one below the other: row j*T + t is the j-th choice of token t, and 0 where that is not
// computed.
template <class S>
struct SharedKeysTape final : ExpertAttention<S>::Tape {
  Array<S> q, k, v;          // as attention sees them: (K*T,I), (T,I), (T,I)
  Array<S> out, lse;         // (K*T,I), (K*T,heads)
  Array<int> position;       // (1,T) in its sequence
  int furthest = 0;          // the largest of them
  std::vector<Index> start;  // of the batch's sequences
  Plan rows;                 // which slot each of those rows is
};

// The plan of the same slots with a row for each choice in the place of each token.
Plan rows_of_choices(Memory& memory, const Plan& plan) {
  const Matrix<int> place = plan.place.to_host();
  const Index tokens = place.rows();
  Matrix<int> slot(place.size(), 1, -1);
  Matrix<int> row(1, plan.slots);
  for (Index t = 0; t < tokens; ++t) {
    for (Index j = 0; j < place.cols(); ++j) {
      slot(j * tokens + t, 0) = place(t, j);
      if (place(t, j) >= 0)
        row(0, place(t, j)) = int(j * tokens + t);
    }
  }
  Plan out;
  out.place = Array<int>(memory, std::as_const(slot).view());
  out.token = Array<int>(memory, std::as_const(row).view());
  out.choice = Array<int>(memory, std::as_const(row).view());
  out.slots = plan.slots;
  return out;
}

template <class S>
class SharedKeys final : public ExpertAttention<S> {
 public:
  using Tape = typename ExpertAttention<S>::Tape;
  using Kept = SharedKeysTape<S>;

  SharedKeys(const ModelConfig& c, int layer, Backend<S>& b)
      : backend_(b), turns_(c.has_rope(layer)), interleaved_(c.rope_interleaved) {
    shape_.heads = c.kv_heads;
    shape_.kv_heads = c.kv_heads;
    shape_.head_dim = c.head_dim;
    shape_.scale = c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(double(c.head_dim));
    shape_.window = c.sees_all(layer) ? 0 : c.window;
    const Index width = Index(c.kv_heads) * c.head_dim;
    wk_ = Parameter<S>(b, "attention.k", {width, c.hidden});
    wv_ = Parameter<S>(b, "attention.v", {width, c.hidden});
    if (turns_)
      rotary_ = rotary_of(c.rope, c.rotary_dims(), c.rope_theta);
  }

  std::unique_ptr<Tape> forward(const Pass& pass, View<const S> x, const Plan& plan,
                                View<const S> q) override {
    auto tape = std::make_unique<Kept>();
    Kept& t = *tape;
    const Batch& batch = pass.batch;
    const std::span<const Index> before = pass.past ? pass.past->start : std::span<const Index>{};
    const Matrix<int> at = positions(batch, before);
    t.position = Array<int>(backend_, at.view());
    t.furthest = at.empty() ? 0 : std::ranges::max(at.flat());
    t.start = batch.start;
    t.rows = rows_of_choices(backend_, plan);
    const Index all = t.rows.place.rows();
    t.q = Array<S>(backend_, all, q.cols);
    backend_.combine(q, t.rows, {}, t.q.view(), 0);
    t.k = product(x, wk_);
    t.v = product(x, wv_);
    turn(t, t.q.view(), false);
    turn(t, t.k.view(), false);
    t.out = Array<S>(backend_, all, q.cols);
    t.lse = Array<S>(backend_, all, shape_.heads);
    if (!pass.past) {
      attend(t, t.k.view(), t.v.view(), batch.start);
      return tape;
    }
    attend_past(t, batch, *pass.past);
    return tape;
  }

  Array<S> heads(const Tape& tape, const Plan& plan) const override {
    const auto& t = static_cast<const Kept&>(tape);
    Array<S> out(backend_, plan.slots, t.out.cols());
    backend_.dispatch(t.out.view(), t.rows, out.view());
    return out;
  }

  Array<S> backward(const Tape& tape, const Plan& plan, View<const S> x, View<const S> dheads,
                    View<S> dx) override {
    const auto& t = static_cast<const Kept&>(tape);
    const Index width = t.q.cols();
    Array<S> dout(backend_, t.q.rows(), width);
    backend_.combine(dheads, t.rows, {}, dout.view(), 0);
    Array<S> dq(backend_, t.q.rows(), width);
    auto dk = Array<S>::zeros(backend_, x.rows, width);
    auto dv = Array<S>::zeros(backend_, x.rows, width);
    attend_backward(t, dout, dq, dk, dv);
    turn(t, dq.view(), true);
    turn(t, dk.view(), true);
    project_backward(backend_, std::as_const(dk).view(), x, wk_, none_, dx, S(0));
    project_backward(backend_, std::as_const(dv).view(), x, wv_, none_, dx, S(1));
    Array<S> out(backend_, plan.slots, width);
    backend_.dispatch(std::as_const(dq).view(), t.rows, out.view());
    return out;
  }

  std::unique_ptr<MixerState> new_state() const override {
    return std::make_unique<KeyValues<S>>();
  }
  void collect(std::vector<Parameter<S>*>& all) override {
    all.insert(all.end(), {&wk_, &wv_});
  }

 private:
  Array<S> product(View<const S> x, const Parameter<S>& w) {
    Array<S> y(backend_, x.rows, w.value().rows);
    backend_.linear(x, w.weight(), y.view(), 0);
    return y;
  }
  AttentionShape shape(std::span<const Index> queries, std::span<const Index> keys) const {
    AttentionShape out = shape_;
    out.query_start = queries;
    out.key_start = keys;
    return out;
  }
  // `rows`: those of the tokens, or of one choice of each below those of another
  void turn(const Kept& t, View<S> rows, bool transposed) {
    if (!turns_)
      return;
    const Index tokens = t.position.cols();
    const Rotation r = rotary_.rotation(shape_.head_dim, 0, interleaved_, t.furthest);
    for (Index first = 0; first < rows.rows; first += tokens)
      backend_.rope(rows.slice(first, tokens), r, t.position.view(), transposed);
  }
  void attend(Kept& t, View<const S> k, View<const S> v, std::span<const Index> keys) {
    const Index tokens = t.position.cols();
    const AttentionShape a = shape(t.start, keys);
    for (Index first = 0; first < t.q.rows(); first += tokens) {
      backend_.attention(std::as_const(t.q).view().slice(first, tokens), k, v, a,
                         t.out.view().slice(first, tokens), t.lse.view().slice(first, tokens));
    }
  }
  // by the keys of the past and their own
  void attend_past(Kept& t, const Batch& batch, MixerPast& past) {
    auto& [k, v, index] = static_cast<KeyValues<S>&>(past.state);
    append_rows(backend_, k, past.start, batch, std::as_const(t).k.view());
    append_rows(backend_, v, past.start, batch, std::as_const(t).v.view());
    const std::vector<Index> keys = grown(batch, past.start);
    attend(t, std::as_const(k).view().slice(0, keys.back()),
           std::as_const(v).view().slice(0, keys.back()), keys);
  }
  void attend_backward(const Kept& t, const Array<S>& dout, Array<S>& dq, Array<S>& dk,
                       Array<S>& dv) {
    const Index tokens = t.position.cols();
    const AttentionShape a = shape(t.start, t.start);
    Array<S> k(backend_, dk.rows(), dk.cols());  // of one choice
    Array<S> v(backend_, dv.rows(), dv.cols());
    for (Index first = 0; first < t.q.rows(); first += tokens) {
      const auto of = [&](const Array<S>& all) {
        return all.view().slice(first, tokens);
      };
      backend_.attention_backward(of(t.q), t.k.view(), t.v.view(), of(t.out), of(t.lse), of(dout),
                                  a, dq.view().slice(first, tokens), k.view(), v.view());
      backend_.add(std::as_const(k).view(), dk.view(), 1);
      backend_.add(std::as_const(v).view(), dv.view(), 1);
    }
  }

  Backend<S>& backend_;
  AttentionShape shape_;
  bool turns_, interleaved_;
  Rotary rotary_;
  Parameter<S> wk_, wv_, none_;
};

}  // namespace

template <class S>
std::unique_ptr<ExpertAttention<S>> make_expert_attention(const ModelConfig& c, int layer,
                                                          Backend<S>& b) {
  return std::make_unique<SharedKeys<S>>(c, layer, b);
}
template std::unique_ptr<ExpertAttention<float>> make_expert_attention(const ModelConfig&, int,
                                                                       Backend<float>&);
template std::unique_ptr<ExpertAttention<double>> make_expert_attention(const ModelConfig&, int,
                                                                        Backend<double>&);

MixerShape expert_attention_shape(const ModelConfig& c, int layer, Count choices) {
  MixerShape m;
  m.in_experts = true;
  m.heads = choices * c.kv_heads;
  m.kv_heads = c.kv_heads;
  m.head_dim = c.head_dim;
  m.window = c.sees_all(layer) ? 0 : c.window;
  const Count width = m.kv_heads * m.head_dim;
  // keys and values; of each choice a query, its heads' output and softmax, and the row that came
  // out of its output matrix; the position
  m.tape_numbers = 2 * width + choices * (2 * width + m.kv_heads + c.hidden) + 1;
  m.backward_numbers = 4 * width + choices * 3 * width;
  return m;
}

}  // namespace moe
