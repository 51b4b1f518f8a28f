// moe recover: the committed rows of an interrupted trace, as a new and complete file.
#include <fmt/format.h>

#include "apps/command.h"
#include "apps/terminal.h"
#include "lib/trace/reader.h"

namespace moe {

Run recover_command(CommandLine& cli) {
  struct Options {
    std::string in, out;
    bool force = false;
  };
  auto o = std::make_shared<Options>();
  cli.add_option("trace", o->in, "the interrupted trace, usually NAME.part; it is never changed")
      .required();
  cli.add_option("-o,--output", o->out, "the new file").type_name("FILE").required();
  cli.add_flag("--force", o->force, "replace a file that exists");
  return [o] {
    const auto rows = recover_trace(o->in, o->out, o->force);
    note(fmt::format("kept {} committed tokens; wrote {}", rows, o->out));
    return 0;
  };
}

}  // namespace moe
