// moe train --dry-run: what a run would take, from the configuration alone. The figures are held
// against real runs by tests/cli.
#include <fmt/format.h>

#include "apps/terminal.h"
#include "apps/training_run.h"

namespace moe {

int dry_run(const ModelConfig& config, const RunOptions& o) {
  const RunState s = state_of(config, o);
  const ModelCost c = cost_of(config, s.train.sequences * s.train.length);
  const double total = 3 * c.flops_per_token_forward * double(s.train.tokens_per_step());
  Table t{.id = "cost",
          .title = "What this run would take",
          .reading =
              "Backward counts twice the forward FLOPs (multiply-add = 2). Memory is that of one "
              "training step; the text itself comes on top. Nothing was built."};
  std::vector<std::string> what, value;
  const auto row = [&](const char* name, std::string text) {
    what.emplace_back(name);
    value.push_back(std::move(text));
  };
  row("parameters", fmt::format("{} ({})", c.parameters, count_text(double(c.parameters))));
  row("active parameters a token",
      fmt::format("{} ({})", c.active_parameters, count_text(double(c.active_parameters))));
  row("of them in experts", fmt::format("{}", c.expert_parameters));
  row("FLOPs a token, forward", count_text(c.flops_per_token_forward));
  row("FLOPs a step", count_text(total));
  row("tokens a step", fmt::format("{}", s.train.tokens_per_step()));
  row("tokens in all", count_text(double(s.train.tokens_per_step() * s.train.steps)));
  row("memory: weights", bytes_text(double(c.weight_bytes)));
  row("memory: gradients and moments", bytes_text(double(c.optimizer_bytes)));
  row("memory: activations", bytes_text(double(c.activation_bytes)));
  const double copies =
      Spec(o.device.device).get("dtype", "f32") == "bf16" ? 2 * double(c.parameters) : 0;
  if (copies > 0)
    row("memory: bf16 copies of weights", bytes_text(copies));
  // Measured for nano to small, batches of 2 to 16: within a tenth in f32, up to an eighth more is
  // used in bf16. Code that oneDNN writes for AVX-512 takes some 7 MiB more than that for AVX2.
  const double around = 27 * 1024 * 1024 + 0.15 * double(c.activation_bytes);
  row("memory: program and scratch", concat("about ", bytes_text(around)));
  row("memory in all",
      concat("about ", bytes_text(double(c.weight_bytes + c.optimizer_bytes + c.activation_bytes) +
                                  copies + around)));
  const double tensors = config.dense ? 0
                                      : double(config.moe_layers()) * config.moe.experts *
                                            (is_gated(config.moe.activation) ? 3 : 2);
  // each expert's tensors have a line of the header, about 125 bytes long
  const double disk = double(c.weight_bytes) * 3 + 125 * tensors;
  row("disk: one checkpoint", bytes_text(disk));
  row("disk: checkpoints kept", bytes_text(disk * double(s.keep + 1)));
  t.columns = {{.name = "what", .cells = what}, {.name = "value", .cells = value}};
  Report report{.title = fmt::format("{}: dry run", config.preset)};
  report.tables.push_back(t);
  write_report(report, {});
  return 0;
}

}  // namespace moe
