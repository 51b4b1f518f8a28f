#include "apps/experts.h"

#include <fmt/format.h>

#include "apps/former_names.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/router/router.h"
#include "lib/run/checkpoint_age.h"
#include "lib/run/evaluation.h"
#include "lib/run/router_warnings.h"

namespace moe {

void add_experts(CommandLine& cli, ExpertOptions& o) {
  cli.add_option(
         "--expert-memory", o.memory,
         "read experts from the file when they are used and keep so much of them (as f32, or bf16 "
         "with --device cpu:dtype=bf16), at least one: 2GB; all = every matrix in memory; default: "
         "matrices in few bits stay in the file as they are; of other models all where the model "
         "takes up to half of this machine's memory, else an eighth of it")
      .type_name("SIZE");
  add_activations(cli, o.activations);
}

void add_activations(CommandLine& cli, std::string& activations) {
  cli.add_option("--activations", activations,
                 "how products with matrices of 8 bits and fewer (Q8_0, Q4_0, Q4_K, Q6_K, int8, "
                 "int4) read activations: exact, as f32; int8, rounded to 8 bits by blocks of 32, "
                 "faster and another model: some choices change; default: exact")
      .type_name("HOW")
      .check(one_of({"exact", "int8"}));
}

Activations activations(const std::string& option) {
  return option == "int8" ? Activations::int8 : Activations::exact;
}

Holding holding(const ExpertOptions& o) {
  const bool rounds = activations(o.activations) == Activations::int8;
  if (rounds && !o.memory.empty()) {
    throw Error(Exit::usage,
                "--activations int8 reads all matrices where they lie in their files, and "
                "--expert-memory takes experts from there")
        .hint("one of the two");
  }
  if (rounds)
    return {.numbers = Keep::in_files, .activations = Activations::int8};
  if (o.memory.empty())
    return {.numbers = Keep::as_fits};
  if (o.memory == "all")
    return {.numbers = Keep::in_memory};
  return {.numbers = Keep::cached, .expert_bytes = parse_size(o.memory, "--expert-memory")};
}

void add_router(CommandLine& cli, std::string& router) {
  cli.add_option("--router", router,
                 "the same weights under another router: replay:trace=FILE goes where the trace "
                 "went (the same --data, --tokens, --length, --batch, --order)")
      .type_name("SPEC")
      .check(current_router_names());
}

void add_top_k(CommandLine& cli, int& k, const std::string& names) {
  cli.add_option(names, k,
                 "every token chooses N experts in place of the number that the model was trained "
                 "with; all else as it is")
      .type_name("N")
      .check(whole(1));
}

void add_batches(CommandLine& cli, BatchOptions& o) {
  cli.add_option(
         "--tokens", o.tokens,
         "about this many, in whole sequences shared by the domains; 0 = the whole valid split")
      .show_default()
      .check(whole(0));
  cli.add_option("--batch", o.sequences, "sequences at once").show_default().check(whole(1));
  cli.add_option("--length", o.length, "tokens of a sequence; 0 = the model's context")
      .show_default()
      .check(whole(0));
  cli.add_option("--order", o.order,
                 "mixed: sequences of the domains interleaved, so that every stretch has them all; "
                 "domain: one domain after another")
      .type_name("WHICH")
      .show_default()
      .check(one_of({"mixed", "domain"}));
}

EvalBatches batches_of(const BatchOptions& o, const ModelConfig& config, std::uint64_t seed) {
  return {.tokens = o.tokens,
          .sequences = o.sequences,
          .length = length_for(o.length, config),
          .order = o.order == "domain" ? SequenceOrder::domain : SequenceOrder::mixed,
          .seed = seed};
}

void report_loading(const LoadedModel& loaded, const std::string& given) {
  if (const std::string taken = checkpoint_taken(given, loaded); !taken.empty())
    note(taken);
  for (const auto& sentences : {loaded.checkpoint.notes, checkpoint_warnings(given, loaded)}) {
    for (const std::string& sentence : sentences)
      warning(sentence);
  }
  for (const std::string& sentence : router_warnings(loaded.model->config()))
    warning(sentence);
  if (loaded.trained_k > 0) {
    note(fmt::format("every token chooses {} experts; the model was trained with {}",
                     loaded.model->moe_layers()[0]->router().choices(), loaded.trained_k));
  }
  if (loaded.holding.activations == Activations::int8) {
    const Index matrices = rounding_matrices(*loaded.model);
    if (matrices > 0) {
      note(
          fmt::format("activations are rounded to 8 bits in front of {} matrices: choices of "
                      "experts are not always those of the exact model",
                      matrices));
    } else {
      warning("--activations int8 changes nothing: no matrix here has products of whole numbers");
    }
  }
  if (loaded.holding.numbers == Keep::as_stored)
    note("matrices in few bits stay so and are decoded each time products read them");
  if (loaded.holding.numbers == Keep::cached) {
    note(fmt::format(
        "experts are read from the file when they are used; up to {} of them stay in memory",
        bytes_text(double(loaded.holding.expert_bytes))));
  }
}

}  // namespace moe
