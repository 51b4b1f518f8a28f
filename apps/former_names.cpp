#include "apps/former_names.h"

#include "apps/terminal.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"
#include "lib/router/former_names.h"

namespace moe {
namespace {

void note_renamed(const std::string& former, const std::string& now) {
  note(concat(former, " is now called ", now));
}

}  // namespace

Check current_router_names() {
  return [](std::string& word) -> std::string {
    Spec spec(word);
    const auto renamed = use_current_names(spec);
    for (const FormerName& name : renamed)
      note_renamed(name.former, name.now);
    if (!renamed.empty())
      word = spec.given_text();
    return {};
  };
}

void add_former_name(CommandLine& cli, const std::string& former, const Option& now,
                     std::string& value) {
  const std::string name = now.name();
  cli.add_option(former, value, "")
      .group("")
      .excludes(now)
      .check([former, name](std::string&) -> std::string {
        note_renamed(former, name);
        return {};
      });
}

}  // namespace moe
