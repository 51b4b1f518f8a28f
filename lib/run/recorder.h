// Turns what the layers decided into trace rows: the bridge between a model that runs and the trace
// file. Used while tracing a checkpoint, while training and while generating; the file itself is
// lib/trace.
#pragma once
#include "lib/model/decoder.h"
#include "lib/trace/writer.h"

namespace moe {

// Header of a trace of this model: layers, router rows, expert bytes. The caller fills in command,
// config, tokenizer and labels.
TraceHeader trace_header(Decoder<float>&);

// Fields that a trace of this model holds (dropped choices only where a capacity or a router can
// drop). Whether rows have modalities is the data's to say.
TraceFields trace_fields(Decoder<float>&);

// Norm of what each computed choice's expert said, (T,K); 0 where it was dropped.
Matrix<float> output_norms(const MoeTape<float>&);

// Pairs of experts are compared up to this many experts: the matrices grow with the square (65,536
// experts: 17 GB a layer).
inline constexpr int most_paired_experts = 1024;

// The (E,E) cosine of the experts' concatenated weights (gate, up, down), a MoE layer each:
// expert_weight_cosine.
PairMatrix weight_cosine(Decoder<float>&);
// That, expert_up_cosine and expert_neuron_mean_cosine; and, with neurons matched one to one,
// expert_matched_cosine: I^3 steps a pair.
std::vector<PairMatrix> weight_similarity(Decoder<float>&, bool matched);

// How alike the experts' outputs are, all experts run on the same tokens, which are taken from the
// batches offered until `tokens` were seen. expert_output_cosine is the mean over all of them;
// expert_output_cka, expert_mean_output_angle and expert_ttm_distance need the outputs side by side
// and are over those of the first batch (CKA over as many of them as fit 256 MiB).
class OutputSimilarity {
 public:
  OutputSimilarity(Decoder<float>&, Index tokens);
  static std::vector<std::string> names();  // of what result() gives, in its order
  bool wants_more() const {
    return seen_ < wanted_;
  }
  void see(int moe_layer, View<const float> x /*(T,H) the layer's input*/,
           const Matrix<int>& chosen /*(T,K)*/);
  void batch_done() {
    seen_ += pending_;
    pending_ = 0;
  }
  std::vector<PairMatrix> result() const;

 private:
  Decoder<float>& model_;
  Index wanted_, seen_ = 0, pending_ = 0;
  std::vector<Matrix<double>> sum_;                   // (L) of (E,E) cosines
  std::vector<std::vector<Matrix<float>>> together_;  // (the other names)(L) of (E,E)
};

// Rows of one sequence, as a trace takes them.
struct SequenceRows {
  std::uint16_t domain = no_domain;
  bool goes_on = false;  // with the last one: no new sequence begins
  TraceRows rows = {};
  SignalGrid grid = {};
};
void append(const std::vector<SequenceRows>&, TraceWriter&);

// Rows of one batch, gathered layer by layer. What an encoder reads stands before what its decoder
// reads, as sequences of their own; layers route the rows of their own stack alone.
class BatchRows {
 public:
  BatchRows(const Batch&, std::uint8_t flags /*token_flag of every row*/,
            int boundary /*id marked special; -1 = none*/);
  void layer(int moe_layer, const MoeTape<float>&, const TraceFields&, bool encoder = false);
  void predictions(const Decoder<float>::Tape&);  // predicted_id, target_id, logprob
  // Every row was computed by this rank, what its source's encoder read as well.
  void computed_by(int rank);
  // Sequence by sequence; domains are those of the batch. A sequence whose past is not empty
  // continues the last one.
  std::vector<SequenceRows> sequences() const;
  void append(TraceWriter& writer) const {
    moe::append(sequences(), writer);
  }

 private:
  void score_figures(const MoeTape<float>&, LayerRows&) const;  // entropy, margin, logsumexp
  void set_layer(int moe_layer, const MoeTape<float>&, const TraceFields&);
  TraceRows sequence_rows(Index q) const;

  const Batch& batch_;
  TraceRows rows_;
  std::unique_ptr<BatchRows> source_;  // those of the encoder; null = there are none
};

}  // namespace moe
