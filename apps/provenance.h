// Where a trace came from, written into its header the same way by every verb that records.
#pragma once
#include "datasets/dataset.h"
#include "lib/trace/trace.h"

namespace moe {

void describe_source(TraceHeader&, const std::string& options_json, const std::string& model_id, const Tokenizer&, const Corpus&, std::uint64_t seed);
void describe_source(TraceHeader&, const std::string& options_json, const std::string& model_id, const Tokenizer&, std::uint64_t seed);

}  // namespace moe
