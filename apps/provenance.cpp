#include "apps/provenance.h"

#include "apps/arguments.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/version.h"
#include "lib/trace/hash.h"

namespace moe {

void describe_source(TraceHeader& h, const std::string& options_json, const std::string& model_id,
                     const Tokenizer& tokenizer, std::uint64_t seed) {
  h.producer = "moe " + version_short();
  h.engine = "moe";
  h.engine_version = version_short();
  h.command = command_line();
  h.config = options_json;
  h.model_id = model_id;
  h.tokenizer_id = tokenizer.id();
  const std::string json = tokenizer.tokenizer_json();
  Sha256 hash;
  hash.update({reinterpret_cast<const std::uint8_t*>(json.data()), json.size()});
  h.tokenizer_sha256 = hash.hex();
  h.created_utc = now_utc();
  h.seed = seed;
  h.pieces = tokenizer.pieces();
}
void describe_source(TraceHeader& h, const std::string& options_json, const std::string& model_id,
                     const Tokenizer& tokenizer, const Corpus& corpus, std::uint64_t seed) {
  describe_source(h, options_json, model_id, tokenizer, seed);
  h.domains = corpus.info().domains;
  if (corpus.info().bare_ids)
    without_pieces(h);
}
void without_pieces(TraceHeader& h) {
  h.tokenizer_id = "none";
  h.tokenizer_sha256.clear();
  h.pieces.clear();
}

bool has_tokenizer(const LoadedModel& loaded) {
  return loaded.state && std::filesystem::exists(loaded.checkpoint.path / "tokenizer.json");
}
void tell_of_bytes(const LoadedModel& loaded, const Corpus& corpus) {
  if (!has_tokenizer(loaded) && !corpus.info().bare_ids) {
    warning(
        "this model's own tokenizer is not read: text goes in as bytes, which it may never have "
        "seen; --data tokens:path=FILE takes its ids");
  }
}
TokenizerFiles tokenizer_files(const Tokenizer& tokenizer, bool bare) {
  if (bare)
    return {.spec = tokenizer.id(), .json = "", .config_json = ""};
  return {tokenizer.id(), tokenizer.tokenizer_json(), tokenizer.tokenizer_config_json(),
          tokenizer.boundary()};
}

}  // namespace moe
