// What a person should hear of a router before its loss or its samples are believed.
#pragma once
#include <string>
#include <vector>

#include "lib/core/view.h"

namespace moe {

struct ModelConfig;

// Whether routing of a token depends on later tokens when the model is evaluated (expert choice,
// Soft MoE): then the loss looks ahead, and no text can be generated the way it was evaluated.
bool looks_ahead(const ModelConfig&);
// Sentences, each true of this model whatever is done with it.
std::vector<std::string> router_warnings(const ModelConfig&);
// Further sentences where it is trained.
std::vector<std::string> router_training_warnings(const ModelConfig&);
// Whether a balance loss is over the micro-batches of a whole step (switch:scope=global).
bool counts_whole_step(const ModelConfig&);
// And of steps of so many micro-batches in lanes, where that is not what it says.
std::vector<std::string> step_warnings(const ModelConfig&, Index accumulate, Index lanes);

}  // namespace moe
