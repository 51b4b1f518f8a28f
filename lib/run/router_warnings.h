// What a person should hear of a router before its loss or its samples are believed.
#pragma once
#include <string>
#include <vector>

namespace moe {

struct ModelConfig;

// Whether routing of a token depends on later tokens when the model is evaluated (expert choice,
// Soft MoE): then the loss looks ahead, and no text can be generated the way it was evaluated.
bool looks_ahead(const ModelConfig&);
// Sentences, each true of this model whatever is done with it.
std::vector<std::string> router_warnings(const ModelConfig&);
// Further sentences where it is trained.
std::vector<std::string> router_training_warnings(const ModelConfig&);
// Throws Error(usage) where an option of the balancers would change nothing in a training: a loss
// over a whole step, while a step gives its micro-batches no counts of the others.
void refuse_without_effect(const ModelConfig&);

}  // namespace moe
