// What this program writes into runs, checkpoints and traces of where they come from.
#pragma once
#include "lib/run/provenance.h"
#include "lib/run/run_tokenizer.h"

namespace moe {

// Version, command line and time of this call, with the verb's resolved options as JSON.
Provenance provenance_of(const std::string& options_json);
// The tokenizer that --data of this model goes through. Without one of its own text goes in as
// bytes, with a warning.
std::shared_ptr<const Tokenizer> tokenizer_for(const LoadedModel&,
                                               const std::vector<std::string>& data);

}  // namespace moe
