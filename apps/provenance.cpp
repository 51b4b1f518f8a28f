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

std::shared_ptr<const Tokenizer> tokenizer_for(const LoadedModel& loaded,
                                               const std::vector<std::string>& data) {
  if (!reads_text(data))
    return make_tokenizer("bytes");
  if (auto own = tokenizer_of(loaded))
    return own;
  warning(
      "this model comes without a tokenizer: text goes in as bytes, which it may never have seen; "
      "--data tokens:path=FILE takes its ids");
  return make_tokenizer("bytes");
}

}  // namespace moe
