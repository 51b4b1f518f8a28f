// Weights into a model that was made for them, from files of either kind.
#pragma once
#include <filesystem>
#include <string>

#include "lib/checkpoint/weights.h"
#include "lib/core/view.h"

namespace moe {

template <class S>
class Decoder;
struct Holding;
struct ModelConfig;
struct Names;

// Throws Error(input) where the configuration describes more parameters than the files can hold:
// nothing is allocated by what it says before. `said_by`: "config.json".
void refuse_sizes(const Weights&, const ModelConfig&, const std::string& said_by);
// An output matrix in the files of a model whose configuration ties it to the embedding.
enum class TiedHead { absent, copy, other };
TiedHead tied_head(const Weights&, const Names&, const ModelConfig&);
std::string head_name(const Names&);
// What as_fits means for this model and machine where nothing is in few bits; anything else is as
// wanted, but that a model without experts has none to keep elsewhere.
Holding on_machine(const ModelConfig&, const Holding& wanted);
// Fills the model; what stays in the files is made when it is read. Numbers that are not finite are
// refused, at the latest when they are read. Returns the names of tensors that no part of the model
// asked for.
std::vector<std::string> load_weights(const Weights&, const Names&, const Holding&,
                                      Decoder<float>&);
// One sentence about them, or nothing where there are none.
std::string left_over(const std::vector<std::string>& names);

}  // namespace moe
