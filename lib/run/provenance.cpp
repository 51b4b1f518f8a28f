#include "lib/run/provenance.h"

#include "lib/files/sha256.h"
#include "lib/tokenizer/open.h"

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
  describe_source(h, p, model_id, tokenizer, seed);
  h.domains = corpus.info().domains;
  if (corpus.info().bare_ids)
    without_pieces(h);
}

void without_pieces(TraceHeader& h) {
  h.tokenizer_id = "none";
  h.tokenizer_sha256.clear();
  h.pieces.clear();
}

std::shared_ptr<const Tokenizer> tokenizer_of(const LoadedModel& loaded) {
  const std::filesystem::path& path = loaded.checkpoint.path;
  if (loaded.state)
    return has_tokenizer(loaded) ? make_tokenizer(loaded.tokenizer) : nullptr;
  return tokenizer_file(path).empty() ? nullptr : open_tokenizer(path);
}

bool has_tokenizer(const LoadedModel& loaded) {
  return loaded.state && std::filesystem::exists(loaded.checkpoint.path / "tokenizer.json");
}

TokenizerFiles tokenizer_files(const Tokenizer& tokenizer, bool bare) {
  if (bare)
    return {.spec = tokenizer.id(), .json = "", .config_json = ""};
  return {tokenizer.id(), tokenizer.tokenizer_json(), tokenizer.tokenizer_config_json(),
          tokenizer.boundary()};
}

}  // namespace moe
