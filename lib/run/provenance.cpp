#include "lib/run/provenance.h"

#include "lib/files/sha256.h"
#include "lib/model/config.h"
#include "lib/run/run_tokenizer.h"

namespace moe {

void describe_source(TraceHeader& h, const Provenance& p, const std::string& model_id,
                     const Tokenizer& tokenizer, std::uint64_t seed) {
  h.producer = "moe " + p.version;
  h.engine = "moe";
  h.engine_version = p.version;
  h.command = p.command;
  h.config = p.options;
  h.model_id = model_id;
  h.tokenizer_id = tokenizer.id();
  h.tokenizer_sha256 = sha256_hex(tokenizer.tokenizer_json());
  h.created_utc = p.created_utc;
  h.seed = seed;
  h.pieces = tokenizer.pieces();
}

void describe_source(TraceHeader& h, const Provenance& p, const std::string& model_id,
                     const Tokenizer& tokenizer, const Corpus& corpus, std::uint64_t seed) {
  const Tokenizer* named = corpus.info().pieces.get();
  describe_source(h, p, model_id, named ? *named : tokenizer, seed);
  h.domains = corpus.info().domains;
  if (corpus.info().bare_ids && !named)
    without_pieces(h);
}

void name_places(TraceHeader& h, const ModelConfig& config) {
  const std::vector<std::string> names = place_names(config.signal);
  if (names.empty() || h.pieces.empty())
    return;
  h.pieces.resize(std::size_t(config.vocabulary) - names.size());
  h.pieces.insert(h.pieces.end(), names.begin(), names.end());
}

void without_pieces(TraceHeader& h) {
  h.tokenizer_id = "none";
  h.tokenizer_sha256.clear();
  h.pieces.clear();
}

}  // namespace moe
