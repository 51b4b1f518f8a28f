// Models made from models: a dense one into a sparse one, more experts, fewer, merged ones. Pure
// functions from Decoder to Decoder; no files are touched. All MoE layers of a model have the same
// number of experts, and so have they after an edit.
#pragma once
#include <memory>

#include "lib/model/decoder.h"

namespace moe {

struct Edited {
  std::unique_ptr<Decoder<float>> model;
  std::vector<std::string> changes;  // what was done, a sentence each
};

// Dense feed-forwards into experts (equations.md section 8); router rows N(0, 0.02^2). The other
// parameters stay as they are.
//   "copy:experts=8,k=2,noise=0.01,every=1": every expert is the dense body; noise: a share of each
//   matrix's root mean square "granular:shards=4,expansion=2,k=4,norm=1": E = shards * expansion
//   experts of width I / shards, k of them a token
// every=n: only every n-th layer. copy also takes router= and both balance=.
Edited upcycle(Decoder<float>&, const std::string& spec, std::uint64_t seed);
// "experts=4,k=4,order=index|random": hidden units cut into equal parts; with k = experts the
// router is zero, every weight exactly 1 and the output that of the dense body; with fewer, router
// rows are small draws and the k parts chosen weigh about 1 each.
Edited split_dense(Decoder<float>&, const std::string& options, std::uint64_t seed);

struct ExpertName {
  int layer = 0, expert = 0;  // absolute number of the layer
  bool operator==(const ExpertName&) const = default;
};
std::vector<ExpertName> expert_names(const std::string& text);  // "3:1,3:5"; throws Error(usage)
// its place among the MoE layers; throws Error(usage) where there is no such expert
int moe_layer_of(const Decoder<float>&, const ExpertName&);

using ExpertScores = std::vector<std::vector<double>>;  // (MoE layers)(E)
// of each layer; ties: the lower id
std::vector<ExpertName> lowest(const Decoder<float>&, const ExpertScores&, int count);

// The `count` experts of highest score in each layer once more (without scores: the first ones),
// matrices and router row disturbed by `noise` times their root mean square.
Edited add_experts(Decoder<float>&, int count, double noise, const ExpertScores& score,
                   std::uint64_t seed);
// as many in every MoE layer; throws Error(usage) otherwise
Edited remove_experts(Decoder<float>&, const std::vector<ExpertName>&);

}  // namespace moe
