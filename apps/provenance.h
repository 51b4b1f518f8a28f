// What this program writes into runs, checkpoints and traces of where they come from.
#pragma once
#include "lib/run/provenance.h"

namespace moe {

// Version, command line and time of this call, with the verb's resolved options as JSON.
Provenance provenance_of(const std::string& options_json);
// A warning where text goes into a model whose tokenizer is not read.
void warn_of_bytes(const LoadedModel&, const Corpus&);

}  // namespace moe
