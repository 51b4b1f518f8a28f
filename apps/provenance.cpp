#include "apps/provenance.h"

#include "apps/arguments.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/version.h"

namespace moe {

Provenance provenance_of(const std::string& options_json) {
  return {.version = version_short(),
          .command = command_line(),
          .created_utc = now_utc(),
          .options = options_json};
}

void warn_of_bytes(const LoadedModel& loaded, const Corpus& corpus) {
  if (!has_tokenizer(loaded) && !corpus.info().bare_ids) {
    warning(
        "this model's own tokenizer is not read: text goes in as bytes, which it may never have "
        "seen; --data tokens:path=FILE takes its ids");
  }
}

}  // namespace moe
