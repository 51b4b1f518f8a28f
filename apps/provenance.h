// Where a trace came from, written into its header the same way by every verb that records.
#pragma once
#include "datasets/dataset.h"
#include "lib/run/run_folder.h"
#include "lib/trace/trace.h"

namespace moe {

void describe_source(TraceHeader&, const std::string& options_json, const std::string& model_id,
                     const Tokenizer&, const Corpus&, std::uint64_t seed);
void describe_source(TraceHeader&, const std::string& options_json, const std::string& model_id,
                     const Tokenizer&, std::uint64_t seed);

void without_pieces(TraceHeader&);  // of ids alone: what they stand for is not known here
// Whether texts of this model are those of a tokenizer of ours: not where it comes from elsewhere,
// or was trained on bare ids.
bool has_tokenizer(const LoadedModel&);
// a warning where text goes into a model that has none
void tell_of_bytes(const LoadedModel&, const Corpus&);
TokenizerFiles tokenizer_files(const Tokenizer&, bool bare);  // bare: none are written

}  // namespace moe
