// The trace as values: what a writer is given and a reader returns. The file format is
// docs/trace-format.md; HDF5 stays inside lib/trace. One row a token, all MoE layers; expert ids
// are logical, before capacity, in key-descending order.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lib/core/matrix.h"
#include "lib/core/modality.h"

namespace moe {

constexpr std::uint32_t withheld_token = 0xFFFFFFFFu;
constexpr std::uint16_t no_domain = 0xFFFFu;

namespace token_flag {
enum : std::uint8_t {
  padding = 1,
  prompt = 2,
  decode = 4,
  train = 8,
  cached = 16,
  special = 32,
  source = 64  // read by the encoder of an encoder-decoder: only its layers routed the token
};
}
enum class Phase : std::uint8_t { prefill = 0, decode = 1, train = 2, eval = 3 };
enum class ScoreFn : std::uint8_t { softmax = 0, sigmoid = 1, other = 2, unknown = 255 };

struct TraceLayer {  // one MoE layer: /model/*
  int index = 0;     // absolute layer number
  int experts = 0, top_k = 0, shared = 0, n_group = 1, topk_group = 1;
  ScoreFn score_fn = ScoreFn::unknown;
  int norm_topk = 255;                          // 0, 1, 255 unknown
  int trained_top_k = 0;                        // where it is not top_k; 0 = as recorded
  float routed_scale = 1, capacity_factor = 0;  // NaN = dropless or unknown
  std::uint64_t expert_bytes = 0;               // bytes of one expert as deployed
  bool by_table = false;   // experts stand in a table of token ids; the scores only weigh them
  bool attention = false;  // experts are queries and outputs of attention (JetMoE)
  bool encoder = false;    // of an encoder, which routes the rows flagged `source` and no others
};

struct TraceStep {  // /steps
  std::int64_t step = 0;
  std::uint64_t token_start = 0;
  std::uint32_t num_tokens = 0;
  Phase phase = Phase::eval;
};

struct TraceSequence {  // /sequences
  std::uint64_t start = 0;
  std::uint32_t length = 0;
  std::uint16_t domain = no_domain;
  SignalGrid grid = {};  // of its rows that are no text
};

struct PairMatrix {  // /experts/NAME: one (E,E) a layer
  std::string name;
  std::vector<Matrix<float>> layer;
};

// What is known before the first row: root attributes, layers, labels, and what was computed once
// from the weights.
struct TraceHeader {
  std::string producer = "moe", engine = "moe", engine_version, command, config, model_id,
              model_revision, tokenizer_id, tokenizer_sha256, created_utc, compute_dtype = "f32",
              quantization, capture_point = "logical", format_version = "1.2";
  // how the sequences of several domains follow each other: mixed|domain; empty = not known
  std::string sequence_order;
  // where the experts come from, XXH3-64 as 16 hexadecimal digits: of the weights that chose, of
  // those that their training began with, and of those that its ancestors began with, the oldest
  // first, between blanks. Two traces that share one of them speak of the same experts. Empty = not
  // known
  std::string weights_xxh3, run_id, lineage;
  std::uint32_t vocab_size = 0;
  // ranks R that computed the rows of a layer's E experts among them: rank r those of the experts
  // from E r / R on; 1 = every rank its own rows, 0 = not known
  std::uint32_t expert_ranks = 0;
  std::int64_t checkpoint_step = -1;
  std::uint64_t seed = 0;
  std::vector<TraceLayer> layers;
  std::vector<std::string> domains;  // labels
  // of the numbers in TraceRows::modality; a writer takes modality_names() where they are empty
  std::vector<std::string> modalities;
  std::vector<std::string> pieces;              // what a token id looks like; may be empty
  std::vector<Matrix<float>> router_weight;     // (E,H) a layer; may be empty
  std::vector<std::vector<float>> router_bias;  // (E) a layer; may be empty
  std::vector<PairMatrix> pairs;
  // tokens per expert, of an engine that only counts: a row a step, (L * max_experts()) in it; such
  // a trace may have no token rows, and layers of an unknown top_k (0). Empty = absent
  Matrix<std::uint32_t> counts;
  std::string weight_kind = "combine";  // combine|prob|score|mix
  bool weight_normalized = false;
  std::string order = "key_desc";                  // key_desc|weight_desc|id_asc|unknown
  std::string logit_kind = "logits";               // logits|probs
  bool wide_weights = false, wide_logits = false;  // stored as f32 instead of f16
  // columns of LayerRows::predicted; 0 = max_choices()
  int predicted = 0;

  int max_experts() const;
  int max_choices() const;
  bool has_encoder() const;  // then every layer routes the rows of its own stack alone
};

// Which optional datasets a file holds, and which ones a reader is asked for.
struct TraceFields {
  bool weights = true, dropped = true, kept = false, entropy = true, margin = true,
       logsumexp = true, logits = false, out_norm = false, predicted = false, rank = false,
       prediction = false /* predicted_id, target_id, logprob */,
       modality = false /* and the grids of sequences */;
};

struct LayerRows {               // T rows of one layer
  Matrix<int> expert;            // (T,Kmax); -1 = none
  Matrix<float> weight;          // (T,Kmax) before any drop; empty = absent
  Matrix<std::uint8_t> dropped;  // (T,Kmax) 1 = dropped by capacity; empty = absent
  Matrix<int> kept;              // (T,Kmax) the expert that computed the slot; empty = absent
  Matrix<int> predicted;         // (T,M); empty = absent
  // (T); empty = absent. nats; p_K - p_(K+1); of the logits
  std::vector<float> entropy, margin, logsumexp;
  Matrix<float> logits;    // (T,Emax) ; empty = absent
  Matrix<float> out_norm;  // (T,Kmax); empty = absent
};

struct TraceRows {          // T rows, all layers: one append, or one window of a read
  std::uint64_t first = 0;  // index of the first row (set by readers)
  std::vector<std::uint32_t> token_id, position, sequence, step;  // (T)
  std::vector<std::uint8_t> flags;                                // (T)
  std::vector<std::uint16_t> rank;                                // (T); may be empty
  // (T) number of a name in TraceHeader::modalities, modality::unknown; may be empty
  std::vector<std::uint8_t> modality;
  std::vector<std::uint32_t> predicted_id, target_id;  // (T); may be empty
  std::vector<float> logprob;                          // (T) nats; may be empty
  std::vector<LayerRows> layer;                        // (L)

  std::size_t tokens() const {
    return token_id.size();
  }
  bool valid(std::size_t t) const {
    return flags.empty() || !(flags[t] & token_flag::padding);
  }
};

}  // namespace moe
