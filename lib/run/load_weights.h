// Weights into a model that was made for them, from files of either kind.
#pragma once
#include <filesystem>
#include <string>

#include "lib/checkpoint/weights.h"
#include "lib/core/view.h"

namespace moe {

template <class S>
class Decoder;
struct ModelConfig;
struct Names;

// Throws Error(input) where the configuration describes more parameters than the files can hold:
// nothing is allocated by what it says before. `said_by`: "config.json".
void refuse_sizes(const Weights&, const ModelConfig&, const std::string& said_by);
// An output matrix in the files of a model whose configuration ties it to the embedding.
enum class TiedHead { absent, copy, other };
TiedHead tied_head(const Weights&, const Names&, const ModelConfig&);
std::string head_name(const Names&);
// Bytes of experts that stay in memory: `wanted`, or what as_fits means for this model and machine.
Index limit_for(const ModelConfig&, Index wanted);
// Fills the model; where `expert_limit` is not negative, experts stay in the files and so many
// bytes of them are kept; with as_stored they stay in few bits and are made when they are read.
// Numbers that are not finite are refused. Returns the names of tensors that no part of the model
// asked for.
std::vector<std::string> load_weights(const Weights&, const Names&, Index expert_limit,
                                      Decoder<float>&);
// One sentence about them, or nothing where there are none.
std::string left_over(const std::vector<std::string>& names);

}  // namespace moe
