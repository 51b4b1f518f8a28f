// Attention to a window of rows and to compressed entries of all rows before (DeepSeek-V4): one key
// a row, which is its value too, for all heads.
//   q = rmsnorm(W_qb rmsnorm(W_qa x)) per head without weights, k = v = rmsnorm(W_kv x), both with
//   their last numbers turned; one softmax over the window, the entries and a sink of each head;
//   the output is turned back and goes through W_oa, in groups of heads, and W_ob.
// Entries: key_compressor.h; with topk a query sees those that an indexer with entries of its own
// finds best (selected_attention.h). Nothing trains the indexer, whose class has no gradient.
#pragma once
#include <string>

namespace moe {

struct ModelConfig;
class Spec;

struct CompressedOptions {
  // 0 = the model's heads and head_dim, a quarter of hidden for the ranks, half of a head turned,
  // the model's window
  int heads = 0, head_dim = 0, q_rank = 0, o_rank = 0, rope_dim = 0, window = 0;
  int groups = 1;        // of heads, for the output
  int rate = 0;          // rows of an entry; 0 = none
  bool overlap = false;  // an entry reads the window before its own as well
  // entries that a query sees, 0 = all before it; the indexer's heads and their numbers
  int topk = 0, index_heads = 0, index_dim = 0;
  double theta = 0;  // base of the rotary frequencies; 0 = the model's
  std::string rope = "default";

  CompressedOptions() = default;
  explicit CompressedOptions(Spec&);
  // With what is left to the model. Throws Error(usage) where sizes do not fit together.
  CompressedOptions resolved(const ModelConfig&) const;
  std::string text() const;  // as a spec of the mixer
};

}  // namespace moe
