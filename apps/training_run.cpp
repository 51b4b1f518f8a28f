#include "apps/training_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "analysis/metric/reach.h"
#include "apps/exact_answers.h"
#include "apps/provenance.h"
#include "apps/ranks.h"
#include "apps/terminal.h"
#include "lib/core/load.h"
#include "lib/core/spec_lists.h"
#include "lib/model/config.h"
#include "lib/model/cost.h"

namespace moe {
namespace {

// Experts without a token, where random routing of so many choices would rarely leave any, and
// where it would as well.
struct Idle {
  int dead = 0, by_chance = 0;

  void add(const LoadFigures& f, std::size_t layers) {
    const chance::Size size{double(f.experts), 1, double(f.assignments), double(layers)};
    (f.dead_fraction > chance::reach_dead_fraction(size) ? dead : by_chance) += f.dead;
  }
  std::string text() const {
    const std::string rest = by_chance ? fmt::format(" ({} idle by chance)", by_chance) : "";
    return fmt::format("dead {}{}", dead, rest);
  }
};

// Loss, balance of the worst layer, dead experts, dropped choices: what a person wants to see
// early.
std::string figures(const StepReport& report) {
  const StepResult& r = report.result;
  double worst = 0;
  double dropped = 0;
  double chosen = 0;
  Idle idle;
  for (const LayerStep& l : r.layer) {
    const LoadFigures f = load_figures(l.counts);
    worst = std::max(worst, f.maxvio);
    idle.add(f, r.layer.size());
    for (std::size_t e = 0; e < l.counts.size(); ++e) {
      chosen += double(l.counts[e]);
      dropped += double(l.counts[e] - l.kept[e]);
    }
  }
  const std::string out =
      fmt::format("loss {:.3f}  {} tok/s", r.loss, count_text(report.tokens_per_second));
  if (r.layer.empty())
    return out;
  return fmt::format("{}  worst MaxVio {:.2f}  {}  dropped {:.1f} %", out, worst, idle.text(),
                     chosen > 0 ? 100 * dropped / chosen : 0);
}

// " (a 1.23, b 4.56)"; nothing where there is one domain.
std::string per_domain_text(const std::vector<DomainLoss>& losses) {
  if (losses.size() < 2)
    return "";
  std::string out;
  for (const DomainLoss& d : losses)
    out += fmt::format("{}{} {:.3f}", out.empty() ? " (" : ", ", d.name, d.loss());
  return out + ")";
}

class TerminalObserver final : public TrainingObserver {
 public:
  void note(const std::string& sentence) override {
    moe::note(sentence);
  }
  void warning(const std::string& sentence) override {
    moe::warning(sentence);
  }
  void started(Index done, Index horizon) override {
    progress_.emplace("step", double(horizon), "step");
    progress_->start_at(double(done));
  }
  void stepped(const StepReport& report) override {
    progress_->update(double(report.result.step), figures(report));
  }
  void validated(Index step, const std::vector<DomainLoss>& losses) override {
    progress_->line(fmt::format("step {}  validation loss {:.4f}{}{}", step, mean_loss(losses),
                                per_domain_text(losses), exact_text(losses)));
  }
  bool wants_stop() override {
    return stop_signal() != 0;
  }
  // Takes the progress line away; returns the seconds since it began.
  double end() {
    const double seconds = progress_->seconds();
    progress_.reset();
    return seconds;
  }

 private:
  std::optional<Progress> progress_;
};

// The device of a run, opened when it is first asked for.
class LateDevice {
 public:
  explicit LateDevice(const DeviceOptions& options) : options_(options) {}
  ~LateDevice() {
    leave_devices();
  }
  LateDevice(const LateDevice&) = delete;
  // Rows of experts will cross between ranks.
  void crosses(bool rows) {
    crosses_ = rows;
  }
  Backend<float>& open(const std::string& spec) {
    opened_ = open_device({.device = spec, .threads = options_.threads});
    if (const std::string why = crosses_ ? carry_rows_on_devices(*opened_, spec) : ""; !why.empty())
      note(why);
    return *opened_;
  }

 private:
  const DeviceOptions& options_;
  bool crosses_ = false;
  std::unique_ptr<Backend<float>> opened_;
};

RunContext context_of(LateDevice& device, const std::string& options_json,
                      const RankOptions& ranks = {}, const ProfileOptions& profile = {}) {
  device.crosses(ranks.expert_ranks > 1);
  return {[late = &device](const std::string& spec) -> Backend<float>& { return late->open(spec); },
          provenance_of(options_json),
          &open_ranks({}),
          ranks,
          profile,
          ranks_here()};
}

// The command that looks into what was trained, over the text that it has not seen.
std::string what_follows(const TrainingRun& run) {
  const RunState& s = run.setup.state;
  const std::string folder = shell_quoted(run.setup.folder.string());
  if (!s.trace.empty())
    return concat("moe report ", shell_quoted(s.trace));
  std::string data;
  for (const std::string& given : s.data) {
    Spec spec(given);
    spec.set("split", "valid");
    data += concat(" --data ", shell_quoted(spec.given_text()));
  }
  const bool routed = model_config(s.model).moe_layers() > 0;
  const std::string name = run.setup.folder.filename().string();
  return routed ? concat("moe trace ", folder, data, " -o ",
                         shell_quoted((name.empty() ? "a" : name) + ".moetrace.h5"))
                : concat("moe eval ", folder, data);
}

// What --zero 3 saved by bringing the chosen experts alone.
void say_brought(const Shards::Sent& experts) {
  if (experts.all == 0)
    return;
  const double share = 100 * double(experts.asked) / double(experts.all);
  if (experts.asked == experts.all)
    note("every rank chose every expert: bringing the chosen ones alone saved nothing");
  else
    note(fmt::format("ranks sent {:.1f} % of the experts' weights, those that were chosen", share));
}

// What crossed with --ep, a token and layer.
void say_crossed(const CrossedRows& rows, Send send) {
  if (rows.tokens == 0)
    return;
  const double tokens = double(rows.tokens);
  const char* way = send == Send::nodes  ? " (a node once)"
                    : send == Send::once ? " (a rank once)"
                                         : "";
  note(
      fmt::format("rows that a token sends in a layer, in the mean: {:.3f} to ranks of its node, "
                  "{:.3f} to other nodes{}; back come {:.3f} and {:.3f}",
                  double(rows.near) / tokens, double(rows.far) / tokens, way,
                  double(rows.back_near) / tokens, double(rows.back_far) / tokens));
}

int go(TrainingRun& run, TerminalObserver& observer) {
  const std::string folder = run.setup.folder.string();
  if (run.setup.ranks.expert_ranks > 1 && !run.setup.ranks.move) {
    note(fmt::format("--move cheaper: {} cross between ranks", run.trainer.move() == Move::weights
                                                                   ? "weights of experts"
                                                                   : "rows of tokens"));
  }
  catch_stop_signals();
  const TrainingResult result = train(run, observer);
  const double seconds = observer.end();
  if (result.stopped) {
    stop_together(run.comm);
    note(fmt::format("stopped at step {} of {}, saved; go on with: moe train --resume {}",
                     run.trainer.done(), run.horizon(), folder));
    return 128 + stop_signal();
  }
  const Index tokens = run.horizon() * run.setup.state.train.tokens_per_step();
  note(fmt::format("{} steps, {} tokens in {}; {}", run.horizon(), count_text(double(tokens)),
                   duration_text(seconds), folder));
  say_brought(result.experts_brought);
  say_crossed(result.rows, run.setup.ranks.send);
  next_step(what_follows(run));
  return 0;
}

}  // namespace

int start_run(const ModelConfig& config, const RunOptions& o, const DeviceOptions& device,
              const RankOptions& ranks, const ProfileOptions& profile) {
  LateDevice late(device);
  TerminalObserver observer;
  const auto run = start_run(config, o, context_of(late, o.options, ranks, profile), observer);
  const ModelConfig& made = run->setup.model->config();
  const TrainOptions& t = run->setup.state.train;
  const ModelCost c = cost_of(made, t.sequences * t.length);
  note(fmt::format("{}: {} parameters, {} active a token; {} steps of {} tokens; seed {}",
                   made.preset, count_text(double(c.parameters)),
                   count_text(double(c.active_parameters)), t.steps, t.tokens_per_step(), t.seed));
  return go(*run, observer);
}

int resume_run(const std::string& folder, const ResumeOptions& options, const DeviceOptions& device,
               const RankOptions& ranks, const ProfileOptions& profile) {
  LateDevice late(device);
  TerminalObserver observer;
  const auto run = resume_run(folder, options, context_of(late, "{}", ranks, profile), observer);
  if (!run)
    return 0;
  if (run->finished()) {
    train(*run, observer);
    observer.end();
    note(fmt::format("{} was done but for its trace; wrote {}", folder, run->setup.state.trace));
    return 0;
  }
  note(fmt::format("going on from step {} of {}", run->trainer.done(), run->horizon()));
  return go(*run, observer);
}

int write_initial(const ModelConfig& config, const RunOptions& o, const std::string& save_dtype,
                  const DeviceOptions& device) {
  LateDevice late(device);
  const InitialWeights written = write_initial(
      config, o, save_dtype == "bf16" ? DType::bf16 : DType::f32, context_of(late, o.options));
  note(fmt::format("{} parameters in {}: {}", count_text(double(written.parameters)), save_dtype,
                   written.checkpoint.string()));
  return 0;
}

}  // namespace moe
