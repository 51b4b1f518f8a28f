// Where a run, a checkpoint or a trace came from, written down the same way by all of them.
#pragma once
#include "datasets/dataset.h"
#include "lib/run/run_folder.h"
#include "lib/trace/trace.h"

namespace moe {

// Who computes, and what was asked for. The program fills it in: a library knows no command line.
struct Provenance {
  std::string version;         // "0.1.0 (1b7e364)"
  std::string command;         // as it was typed
  std::string created_utc;     // ISO 8601
  std::string options = "{}";  // every option with its value, JSON
};

void describe_source(TraceHeader&, const Provenance&, const std::string& model_id, const Tokenizer&,
                     std::uint64_t seed);
// The same with the domains of a corpus, and no pieces where its ids are of no known tokenizer.
void describe_source(TraceHeader&, const Provenance&, const std::string& model_id, const Tokenizer&,
                     const Corpus&, std::uint64_t seed);
// Pieces of the ids that stand for places of pictures and sounds, behind those of the tokenizer.
void name_places(TraceHeader&, const ModelConfig&);
void without_pieces(TraceHeader&);  // of ids alone: what they stand for is not known here

}  // namespace moe
