// A decoder: embedding, then per layer x += mixer(norm(x)); x += feed-forward or MoE(norm(x)), then
// norm and the output matrix. With several streams a layer mixes those (streams.h). With norm_after
// (OLMo 2) x += norm(mixer(x)), and so the second; with norm_both (Trinity) there is a norm on
// either side. A layer may have one of the two alone (Nemotron 3). Where the first layers are an
// encoder, they read Batch::source, and every layer behind them has a third branch between the two,
// x += cross(norm(x)), that attends to the encoder's normed output. Forward and backward stand side
// by side; Tape holds what backward needs, nothing is hidden in a layer.
#pragma once
#include <functional>
#include <optional>

#include "lib/layer/moe_layer.h"
#include "lib/model/beside.h"
#include "lib/model/mixer.h"
#include "lib/model/norm.h"
#include "lib/model/signal_projector.h"
#include "lib/model/streams.h"

namespace moe {

struct FeedShape;
struct ModelConfig;
template <class S>
class CrossAttention;
template <class S>
struct SharedParts;

template <class S>
class Decoder {
 public:
  // zeros; initialise() or a checkpoint fills it
  Decoder(const ModelConfig&, Backend<S>&, Storage experts = Storage::own);
  ~Decoder();
  // by config().init; the same on every backend. Experts that lie elsewhere are drawn when asked
  // for
  void initialise(std::uint64_t seed);

  // How a branch comes back to the stream: x + beta branch, or with `normed` alpha n + beta branch
  // in its place, where n = norm(x) is what the branch read.
  struct Joint {
    double alpha = 1, beta = 1;
    bool normed = false;
  };
  struct Block {
    // of what mixer and feed-forward read, and of what they put out; empty where there is none
    Norm<S> mixer_norm, mixer_after, cross_norm, feed_norm, feed_after;
    std::string mixer_name, feed_mixer_name;
    std::unique_ptr<Mixer<S>> mixer;           // null: none
    std::unique_ptr<CrossAttention<S>> cross;  // to the encoder; null = there is none
    // at most one of the three, or the first two with `beside`
    std::optional<MoeLayer<S>> moe;
    std::optional<FeedForward<S>> dense;
    std::unique_ptr<Mixer<S>> feed_mixer;
    Joint mixer_joint, feed_joint;
    // of a model with several streams: how mixer and feed-forward read and mix them
    std::optional<HyperConnection<S>> mixer_streams, feed_streams;
    std::optional<Beside<S>> beside;  // where there are both
    Parameter<S> scale;               // (1) of the layer's output; empty = 1

    bool feeds() const {
      return moe || dense || feed_mixer;
    }
  };
  struct BlockTape {
    // normed and feed_in: norm(x) and norm(mixed), where mixer and feed-forward read those
    Array<S> x, normed, rstd, mixed /*x after the mixer*/, feed_in, feed_rstd;
    // what mixer and feed-forward put out, where norms stand behind them
    Array<S> mixer_out, mixer_out_rstd, feed_out, feed_out_rstd;
    // of attention to the encoder: x before it, norm(that); `mixed` is then what is behind it
    Array<S> own, cross_in, cross_rstd;
    std::unique_ptr<MixerTape> mixer, feed_mixer, cross;
    StreamTape<S> mixer_stream, feed_stream;
    std::optional<MoeTape<S>> moe;
    typename FeedForward<S>::Tape dense;
    typename Beside<S>::Tape beside;
  };
  // What the encoder read, and its output, normed: what the decoder attends to.
  struct SourceTape {
    Array<int> token;
    Array<S> last, memory, rstd;
    std::unique_ptr<const Batch> routed;  // the source without its padding marked
  };
  struct Tape {
    std::vector<BlockTape> block;
    SourceTape source;
    Array<int> token, target;
    std::vector<typename SignalProjector<S>::Tape> signal;  // one a kind
    Array<S> embedded, embedded_rstd;  // before the norm of the embedding, where there is one
    Array<S> streams;                  // behind the last layer, where there are several
    StreamTape<S> head_stream;
    Array<S> last, normed, rstd, dlogits;  // dlogits: gradient of the mean loss times loss_scale
    // until read_losses(): token losses (1,T), sums of balance losses (layers,E+2)
    Array<S> loss_on_device, sums_on_device;
    Matrix<S> token_loss;   // (1,T) nats; 0 where there is no target
    Matrix<int> predicted;  // (1,T) argmax of the logits; filled where wanted
    double loss = 0;        // mean over targets, nats
    Index targets = 0;
  };
  // Called for each MoE layer after it ran: its place among the MoE layers, its tape, its input
  // (T,H).
  using Observe = std::function<void(int moe_layer, const MoeTape<S>&, View<const S> x)>;

  // When a device routes, losses need not be read, and waited for, at once.
  enum class ReadLosses { now, later };
  // Loss and everything backward needs. pass.loss_scale scales the gradient of the mean loss and of
  // the balance losses. pass.other_counts holds the counts of all MoE layers, (moe_layers*E), or
  // nothing. Padding stands at the end of a sequence.
  void forward(const Pass&, Tape&, ReadLosses = ReadLosses::now);
  // Fills loss, token_loss and the layers' balance losses where forward() left them on the device:
  // one wait for all tapes. Else nothing.
  void read_losses(std::span<Tape> tapes);
  // Adds to the gradients of what is trained. Frees the tape as it goes down; what the host holds
  // of a MoE layer (routing, losses, probabilities) stays.
  void backward(const Pass&, Tape&);
  // Shares the experts of every layer out to the ranks of a group (MoeLayer::share_out).
  void share_out(Comm& group, const CrossingWay& = {});
  // Hears of every layer as a pass comes to it and leaves it, of passes that are served too; layer
  // of_no_layer is what belongs to no single one, which a pass comes to first.
  enum class At { before_forward, after_forward, before_backward, after_backward };
  static constexpr int of_no_layer = -1;
  using Watch = std::function<void(int layer, At)>;
  void watch(Watch watch) {
    watch_ = std::move(watch);
  }
  // What a rank does in a pass of the others when it has no batch of its own: forwards, and in
  // training backwards with what that left.
  std::vector<CrossingTape<S>> serve(bool training);
  void serve_backward(const std::vector<CrossingTape<S>>&);
  // Whether balance losses are over the micro-batches of a whole step.
  bool counts_whole_step();
  // After a forward() whose counts follow (Pass::counts_follow): what this micro-batch counts in
  // each layer for them (MoE layers, balancers over a step, E), and their losses from the counts of
  // the other micro-batches, in that order. Before backward().
  std::vector<std::int64_t> step_counts(const Pass&, const Tape&) const;
  void balance_step(const Pass&, std::span<const std::int64_t> others, Tape&);
  // Without gradients, layer by layer; tapes are dropped as it goes. Fills loss, token_loss,
  // predicted of `out` where the batch has targets; logits of the last token of each sequence (Q,V)
  // where wanted.
  void infer(const Pass&, Tape& out, const Observe& = {}, DecoderState* state = nullptr,
             Matrix<S>* last_logits = nullptr);

  void logits(View<const S> normed /*(T,H), Tape::normed*/, View<S> z /*(T,V), set*/) const;

  const ModelConfig& config() const {  // specs resolved
    return *config_;
  }
  Backend<S>& backend() {
    return backend_;
  }
  // in a fixed order, names "layers.3.moe.experts.gate", "embedding", ...
  std::vector<Parameter<S>*> parameters();
  // the same, with what their parts say of them
  std::vector<ModelParameter<S>> inventory();
  std::vector<MoeLayer<S>*> moe_layers();
  int layer_of(int moe_layer) const;  // absolute layer number
  std::vector<Block>& blocks() {
    return blocks_;
  }
  // before somebody looks at a tape of forward(): see MoeLayer
  void fetch_routing(Tape&);
  void want_grads();
  void clear_grads();

 private:
  void build_blocks(Storage experts);
  void build_feed(int layer, const std::optional<FeedShape>&, Storage experts);
  void name_parameters(Block&, const std::string& at);
  void collect_feed(Block&, int layer, std::vector<ModelParameter<S>>& all);
  // One stack at work: the decoder, or the encoder before it.
  struct Stage {
    const Pass& pass;    // what feed-forwards get
    const Batch& batch;  // what mixers get: its padding is marked, also where it is routed
    const Batch* source = nullptr;  // whose rows the memory has
    View<const S> memory = {};      // the encoder's output; empty where the state holds it
    View<S> dmemory = {};           // backwards: its gradient, added to
    DecoderState* state = nullptr;
  };
  using TapeOf = std::function<BlockTape&(int layer)>;
  using Visit = std::function<void(int layer, BlockTape&)>;
  // Both stacks, from the tokens to what the last layer puts out; `done` sees each layer's tape.
  Array<S> run_stacks(const Pass&, Tape&, DecoderState*, const TapeOf&, const Visit& done);
  Array<S> run_layers(const Stage&, int first, int last, Array<S> x, const TapeOf&, const Visit&);
  void encode(const Pass&, Tape&, const TapeOf&, const Visit&);
  void encode_backward(const Pass&, Tape&, Array<S> dmemory);
  Pass encoder_pass(const Pass&, Tape&) const;
  const Batch& source_of(const Batch&, DecoderState*) const;
  void add_positions(const Batch&, View<S> x, const DecoderState*);
  void embed_backward(View<S> dx, const Array<int>& token, Parameter<S>& table);
  // x += what projectors make of the rows of signals; backwards, their gradients.
  void add_signals(const Batch&, View<S> x, Tape&);
  void signals_backward(View<const S> dx, Tape&);
  Parameter<S>& source_table() {
    return encoder_embedding_.empty() ? embedding_ : encoder_embedding_;
  }
  // x += cross(norm(x)), in place of BlockTape::mixed
  void attend(const Stage&, int layer, BlockTape&);
  void attend_backward(const Stage&, int layer, BlockTape&, View<const S> dy, View<S> dx);
  void backward_layers(const Stage&, int first, int last, Tape&, View<S> dx);
  Array<S> embed(const Batch&, Tape&);
  // Of rows and positions that a batch brings (decoder_rows.cpp). Throw Error(input) for what does
  // not fit the model.
  void check_batch(const Batch&) const;
  void check_positions(const Batch&, const DecoderState*) const;
  void take_ids(const Batch&, Tape&);
  void put_given(const Batch&, View<S> x);
  void forget_given(const Batch&, View<S> dx);
  void add_behind(const Batch&, int layer /*of the decoder*/, View<S> x);
  // The batch with the positions that follow those of its sequences; nothing where rows count.
  std::optional<Batch> going_on(const Batch&, const DecoderState&) const;
  void remember_positions(const Batch&, DecoderState&) const;
  // the block's output
  Array<S> forward(const Stage&, int layer, Array<S> x, BlockTape&);
  // its first half: x + mixer(norm(x))
  void mix(const Batch&, int layer, Array<S> x, BlockTape&, DecoderState*);
  // the second: mixed + the feed-forward's share
  Array<S> feed(const Pass&, int layer, BlockTape&, DecoderState*);
  void run_feed(const Pass&, int layer, BlockTape&, View<S> y, DecoderState*);
  void run_mixer(const Batch&, int layer, BlockTape&, View<S> y, DecoderState*);
  void mixer_backward(const Batch&, Block&, BlockTape&, View<const S> dy, View<S> dx);
  // the same where there are several streams; see streams.h
  void mix_streams(const Batch&, int layer, BlockTape&, DecoderState*);
  Array<S> feed_streams(const Pass&, int layer, BlockTape&, DecoderState*);
  void mix_streams_backward(const Batch&, Block&, BlockTape&, View<S> dx);
  void feed_streams_backward(const Pass&, int layer, BlockTape&, View<S> dx, const GateGradients&);
  void build_streams(Block&, const std::string& at);
  // dread (T,H) set: through a MoE layer, a dense feed-forward or a mixer in its place
  void body_backward(const Pass&, int layer, BlockTape&, View<const S> dy, View<S> dread,
                     const GateGradients&);
  void feed_backward(const Pass&, int layer, BlockTape&, View<const S> dy, View<S> dx,
                     const GateGradients&);
  // what the mixer and the feed-forward read
  View<const S> mixer_input(const BlockTape& t) const {
    return t.normed.empty() ? t.x.view() : t.normed.view();
  }
  View<const S> feed_input(const BlockTape& t) const {
    return t.feed_in.empty() ? t.mixed.view() : t.feed_in.view();
  }
  View<const S> expert_input(const BlockTape& t) const {
    return t.beside.experts_in.empty() ? feed_input(t) : t.beside.experts_in.view();
  }
  // its output: what a layer before left for it, and its scale
  void finish(Block&, View<S> y);
  void unfinish(Block&, View<S> dx);
  void build_beside(Block&, const std::optional<FeedShape>&, const std::string& at);
  void build_norms(Block&, int layer, const std::string& at);
  void build_joints(Block&, bool attends);
  void rejoin(const Joint&, View<const S> x, View<const S> normed, View<S> branch);
  // dx = gradient of the stream before the branch, from that behind it in dx and `part`, that by
  // what the branch read
  void rejoin_backward(const Joint&, Norm<S>&, View<const S> x, View<const S> rstd, Array<S>& part,
                       View<S> dx);
  View<const S> at_branch(View<const S> dx, const Joint&, Array<S>& scaled);
  void backward(const Stage&, int layer, BlockTape&,
                View<S> dx /*of the output in, of the input out*/, const GateGradients&);
  void read_out(Array<S> x, Tape&);        // final norm
  void compare(Tape&, double loss_scale);  // with the targets: losses and dlogits
  const S* take_losses(Tape&, const S* from);
  Array<S> read_out_backward(Tape&);
  std::vector<Index> begin(const Batch&, DecoderState&);
  void score_targets(Tape&);
  Matrix<S> logits_at_end(const Batch&, const Tape&);
  // of rows first.., without gradients
  void losses(Tape&, View<S> logits, Index first);
  Pass of_layer(const Pass&, int moe_layer) const;
  void hear(int layer, At at) const {
    if (watch_)
      watch_(layer, at);
  }
  void scale(View<S> y, double factor) {  // in place
    if (factor != 1)
      backend_.add(y, y, S(factor - 1));
  }
  const Parameter<S>& head() const {
    return output_.empty() ? embedding_ : output_;
  }

  std::unique_ptr<const ModelConfig> config_;
  Backend<S>& backend_;
  Parameter<S> embedding_, encoder_embedding_, output_, output_bias_;
  std::vector<SignalProjector<S>> projector_;  // one for each of config().signal
  Norm<S> embedding_norm_, final_norm_, encoder_norm_;
  std::optional<HyperConnection<S>> head_streams_;
  std::unique_ptr<SharedParts<S>> shared_;
  Watch watch_;
  std::vector<Block> blocks_;
  // of a layer with a shortcut, until the next one is through: its experts' output, its gradient
  Array<S> late_, dlate_;
};

extern template class Decoder<float>;
extern template class Decoder<double>;

}  // namespace moe
