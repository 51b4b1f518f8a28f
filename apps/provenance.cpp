#include "apps/provenance.h"

#include "apps/arguments.h"
#include "apps/output.h"
#include "apps/version.h"
#include "lib/trace/hash.h"

namespace moe {

void describe_source(TraceHeader& h, const std::string& options_json, const std::string& model_id, const Tokenizer& tokenizer, std::uint64_t seed) {
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
void describe_source(TraceHeader& h, const std::string& options_json, const std::string& model_id, const Tokenizer& tokenizer, const Corpus& corpus, std::uint64_t seed) {
  describe_source(h, options_json, model_id, tokenizer, seed);
  h.domains = corpus.info().domains;
}

}  // namespace moe
