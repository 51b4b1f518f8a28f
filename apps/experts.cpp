#include "apps/experts.h"

#include <fmt/format.h>

#include "apps/terminal.h"
#include "lib/core/text.h"

namespace moe {

void add_experts(CLI::App& cli, ExpertOptions& o) {
  cli.add_option(
         "--expert-memory", o.memory,
         "read experts from the file when they are used and keep so much of them (as f32, or bf16 "
         "with --device cpu:dtype=bf16), at least one: 2GB; all = every expert in memory; default: "
         "all where the model takes up to half of this machine's memory, else an eighth of it")
      ->type_name("SIZE");
}

Index expert_limit(const ExpertOptions& o) {
  if (o.memory.empty())
    return as_fits;
  return o.memory == "all" ? all_experts : parse_size(o.memory, "--expert-memory");
}

void tell(const LoadedModel& loaded) {
  for (const std::string& n : loaded.checkpoint.notes)
    warning(n);
  if (loaded.expert_limit >= 0) {
    note(fmt::format(
        "experts are read from the file when they are used; up to {} of them stay in memory",
        bytes_text(double(loaded.expert_limit))));
  }
}

}  // namespace moe
