// moe train --dry-run: what a run would take, from the configuration alone. The figures are held
// against real runs by tests/cli.
#include <fmt/format.h>

#include "apps/terminal.h"
#include "apps/training_run.h"
#include "lib/model/cost.h"
#include "lib/run/few_bits_experts.h"
#include "lib/run/router_warnings.h"
#include "lib/run/step_memory.h"

namespace moe {
namespace {

struct Rows {
  std::vector<std::string> what, value;

  void add(const char* name, std::string text) {
    what.emplace_back(name);
    value.push_back(std::move(text));
  }
};

void add_work(Rows& rows, const ModelCost& c, const TrainOptions& t) {
  const double total = 3 * c.flops_per_token_forward * double(t.tokens_per_step());
  rows.add("parameters", fmt::format("{} ({})", c.parameters, count_text(double(c.parameters))));
  rows.add("active parameters a token",
           fmt::format("{} ({})", c.active_parameters, count_text(double(c.active_parameters))));
  rows.add("of them in experts", fmt::format("{}", c.expert_parameters));
  rows.add("FLOPs a token, forward", count_text(c.flops_per_token_forward));
  rows.add("FLOPs a step", count_text(total));
  rows.add("tokens a step", fmt::format("{}", t.tokens_per_step()));
  rows.add("tokens in all", count_text(double(t.tokens_per_step() * t.steps)));
}

// copies: bytes of bf16 weights beside those in f32
void add_memory(Rows& rows, const StepMemory& m, double copies, int ranks) {
  if (ranks > 1)
    rows.add("memory is that of", fmt::format("one of {} ranks, the one that holds most", ranks));
  rows.add("memory: weights", bytes_text(m.weights));
  if (ranks > 1) {
    rows.add("memory: gradients", bytes_text(m.gradients));
    rows.add("memory: moments", bytes_text(m.moments));
  } else {
    rows.add("memory: gradients and moments", bytes_text(m.gradients + m.moments));
  }
  const std::string together =
      m.micro_batches > 1 ? fmt::format(" ({} micro-batches at once)", m.micro_batches) : "";
  rows.add("memory: activations", bytes_text(m.activations) + together);
  if (m.mapped > 0) {
    rows.add("memory: experts in few bits, pages of their file that the system may drop",
             bytes_text(m.mapped));
  }
  if (m.lanes > 0)
    rows.add("memory: gradients of lanes", bytes_text(m.lanes));
  if (m.passing > 0)
    rows.add("memory: one layer's, while it computes", bytes_text(m.passing));
  if (copies > 0)
    rows.add("memory: bf16 copies of weights", bytes_text(copies));
  // Measured for nano to small, batches of 2 to 16: within a tenth in f32, up to an eighth more is
  // used in bf16. Code that oneDNN writes for AVX-512 takes some 3 to 7 MiB more than that for
  // AVX2, and a program just built, all in the page cache, some 2 MiB more than one read by pages.
  // A rank has some 13 MiB of Open MPI (4 ranks on one host; scripts/ranks.sh --only memory).
  const double around = (ranks > 1 ? 50 : 37) * 1024 * 1024 + 0.15 * m.activations;
  rows.add("memory: program and scratch", concat("about ", bytes_text(around)));
  rows.add("memory in all", concat("about ", bytes_text(m.all() + m.mapped + copies + around)));
}

// whole: of one rank
void add_disk(Rows& rows, const StepMemory& whole, const ModelConfig& config, Index keep) {
  const double tensors = config.dense ? 0
                                      : double(config.moe_layers()) * config.moe.experts *
                                            (is_gated(config.moe.activation) ? 3 : 2);
  // each expert's tensors have a line of the header, about 125 bytes long
  const double disk = whole.weights + whole.mapped + whole.moments + 125 * tensors;
  rows.add("disk: one checkpoint", bytes_text(disk));
  rows.add("disk: checkpoints kept", bytes_text(disk * double(keep + 1)));
}

class Notes final : public TrainingObserver {
  void note(const std::string& sentence) override {
    moe::note(sentence);
  }
};

// Whether products would read bf16 copies of weights: on this machine, or where the device is
// another one's, as its name says.
bool multiplies_bf16(const std::string& device) {
  if (Spec(device).get("dtype", "f32") != "bf16")
    return false;
  try {
    return make_backend(device)->operand_type() == DType::bf16;
  } catch (const Error&) {
    return true;
  }
}

}  // namespace

int dry_run(const ModelConfig& given, const RunOptions& o, const RankOptions& layout, int ranks) {
  Notes notes;
  const ModelConfig config = config_on_data(given, o, notes);
  const RunState s = state_of(config, o);
  Trainer::refuse_layout(s.train, layout, ranks, experts_of(config));
  for (const std::string& sentence : step_warnings(config, s.train.accumulate, s.train.lanes))
    warning(sentence);
  const ModelCost c = cost_of(config, s.train.sequences * s.train.length);
  if (!o.init.empty())
    refuse_few_bits(o.init, s.train, layout);
  const double few_bits = o.init.empty() ? 0 : few_bits_bytes(o.init, o.device);
  const bool narrow = multiplies_bf16(o.device);
  Rows rows;
  add_work(rows, c, s.train);
  const std::int64_t copied = c.parameters - (few_bits > 0 ? c.expert_parameters : 0);
  add_memory(rows, step_memory(config, s.train, layout, ranks, few_bits),
             narrow ? 2 * double(copied) : 0, ranks);
  add_disk(rows, step_memory(config, s.train, {}, 1, few_bits), config, s.keep);
  Table t{.id = "cost",
          .title = "What this run would take",
          .reading =
              "Backward counts twice the forward FLOPs (multiply-add = 2). Memory is that of one "
              "training step; the text itself comes on top. Nothing was built."};
  t.columns = {{.name = "what", .cells = rows.what}, {.name = "value", .cells = rows.value}};
  Report report{.title = fmt::format("{}: dry run", config.preset)};
  report.tables.push_back(t);
  write_report(report, {});
  return 0;
}

}  // namespace moe
