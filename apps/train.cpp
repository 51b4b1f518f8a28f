// moe train: a run from its first step to its horizon, or from its newest checkpoint on.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/former_names.h"
#include "apps/ranks.h"
#include "apps/terminal.h"
#include "apps/training_run.h"
#include "apps/values.h"
#include "datasets/text_domains.h"
#include "lib/model/mixer_type.h"

namespace moe {
namespace {

struct ModelOptions {
  std::string model = "tiny", router, capacity;
  std::vector<std::string> balance;
  int experts = 0, width = 0;
  bool dense = false;
};

// The model's spec with what the command line says on top of it.
std::string model_spec(const ModelOptions& o) {
  Spec spec(o.model);
  if (!o.router.empty())
    spec.set("router", o.router);
  if (!o.capacity.empty())
    spec.set("capacity", o.capacity);
  if (!o.balance.empty())
    spec.set("balance", join(o.balance, ";"));
  if (o.experts > 0)
    spec.set("experts", concat(o.experts));
  if (o.width > 0)
    spec.set("width", concat(o.width));
  if (o.dense)
    spec.set("dense", "1");
  return spec.given_text();
}

struct Options {
  ModelOptions model;
  RunOptions run;
  DeviceOptions device;
  std::vector<std::string> parts;  // what trains; empty = all
  std::string resume, special, task;
  std::string data_changed = "refuse", version_changed = "refuse";  // or accept
  std::string save_dtype;  // f32 or bf16: weights alone; empty = a checkpoint that can be resumed
  bool dry = false;
  RankChoices ranks;
  RankOptions layout;
  std::string move = "tokens";  // what crosses with --ep: tokens, weights or cheaper
  std::string send = "rows";    // how rows of tokens cross: rows, once or nodes
  int nodes = 0;                // that the ranks of --ep stand on; 0 = those of the launcher
  bool split = false;           // of the time of steps
  std::string spans;            // FILE or FILE,steps=A-B
};

// A new run on a checkpoint's weights: its model, with another router, balance or capacity where
// asked for.
ModelConfig config_of(Options& o, const CommandLine& cli) {
  if (o.run.init.empty())
    return model_config(model_spec(o.model));
  for (const char* fixed : {"--model", "--experts", "--width", "--dense", "--tokenizer"}) {
    if (cli.given(fixed)) {
      throw Error(Exit::usage, concat(fixed, " cannot change what --init brings with it"))
          .hint("moe edit makes another model of a checkpoint");
    }
  }
  o.model.model = to_spec(read_checkpoint_config(o.run.init).config);
  return model_config(model_spec(o.model));
}

void add_model(CommandLine& cli, ModelOptions& o) {
  const OptionGroup model(cli, "model");
  model
      .text("--model", o.model, "SPEC",
            "preset, and fields over it: tiny:layers=6,hidden=96 (moe list models)")
      .show_default();
  model.text("--router", o.router, "SPEC", "routing rule (moe list routers); default: the preset's")
      .check(current_router_names());
  model
      .repeatable("--balance", o.balance,
                  "what keeps experts evenly used; may be given again; none = nothing")
      .type_name("SPEC");
  model.text("--capacity", o.capacity, "SPEC", "how many slots an expert may take");
  model.add("--experts", o.experts, "number of experts").check(whole(1));
  model.add("--width", o.width, "width of an expert").check(whole(1));
  cli.add_flag("--dense", o.dense,
               "a dense baseline: the same active parameters a token, no experts")
      .group("model");
}

void add_training(CommandLine& cli, Options& o) {
  TrainOptions& t = o.run.train;
  const OptionGroup training(cli, "training");
  training.number("--steps", t.steps, "the horizon: steps in all", whole(0));
  training.number("--batch", t.sequences, "sequences of a micro-batch", whole(1));
  training.add("--length", o.run.length, "tokens of a sequence; default: the model's context")
      .check(whole(1));
  training.number("--accumulate", t.accumulate, "micro-batches of a step", whole(1));
  training
      .add("--lanes", t.lanes,
           "chains of micro-batches that several ranks can share; default: the ranks that were "
           "started (docs/ranks.md)")
      .check(whole(1));
  training.number("--lr", t.lr, "peak learning rate", real(0, 1e300));
  training
      .text("--schedule", t.schedule, "SPEC",
            "cosine:warmup=,floor= | wsd:warmup=,decay=,floor= | constant:warmup=")
      .show_default();
  training.number("--decay", t.decay, "AdamW's weight decay (matrices only)", real(0, 1e300));
  training.number("--clip", t.clip, "largest gradient norm; 0 = none", real(0, 1e300));
  training.repeatable(
      "--train", o.parts,
      concat(
          "what trains: router | experts | experts=1,3 | shared | ", join(mixers().names(), " | "),
          " | cross_attention | dense | norms | embedding | projector | all; several with commas, "
          "or given again; the rest is frozen"));
  training.add("--lr-factor", t.lr_factor,
               "learning rate by group, times the peak: router=0.1,experts=2; of one expert of "
               "each layer: experts.3=0.5; experts=load: by the root of what each computed");
  training.number("--seed", t.seed, "seed of everything random", whole(0));
}

void add_saving(CommandLine& cli, Options& o) {
  RunOptions& r = o.run;
  const OptionGroup run(cli, "run");
  run.number("--save-every", r.save_every, "steps between checkpoints; 0 = only at the end",
             whole(0));
  run.number("--save-minutes", r.save_minutes,
             "one more after so many minutes without a checkpoint; 0 = none", real(0, 1e300));
  run.text("--save-dtype", o.save_dtype, "WHICH",
           "with --steps 0: write the weights alone, as f32 or bf16; such a run can be used, "
           "but not resumed")
      .check(one_of({"f32", "bf16"}));
  run.number("--keep", r.keep, "newest checkpoints kept", whole(1));
  run.number("--eval-every", r.eval_every, "steps between validations; 0 = only at the end",
             whole(0));
  run.number("--eval-tokens", r.eval_tokens,
             "validation tokens, over all domains; 0 = the whole split", whole(0));
  run.number("--log-every", r.log_every, "steps between lines of metrics.jsonl", whole(1));
  run.text("--trace", r.trace, "FILE",
           "record routing while training, to this file; with --resume: go on there, or none");
  run.number("--trace-every", r.trace_every, "record every n-th step", whole(1));
  run.flag(
      "--trace-ranks", r.trace_ranks,
      "record which rank computed a token, for moe report's load by rank; such a trace differs "
      "with the number of ranks");
}

// A resumed run goes on as it was begun: only the horizon, what computes and the place of its trace
// may change.
void refuse_changes(const CommandLine& app, const std::string& folder) {
  static constexpr std::array allowed = {
      "--resume",       "--steps",           "--device",   "--threads",      "--config", "--trace",
      "--data-changed", "--version-changed", "--patience", "--zero",         "--ep",     "--move",
      "--ep-send",      "--ep-nodes",        "--profile",  "--profile-trace"};
  for (const Option& option : app.options()) {
    if (const std::string name = option.name();
        option.given() && std::ranges::find(allowed, name) == allowed.end()) {
      throw Error(Exit::usage,
                  concat(name, " belongs to the run and cannot change when it is resumed"))
          .hint(concat("moe train --resume ", folder));
    }
  }
}

// 0 where the text is no whole number of 1 or more.
Index step_number(std::string_view text) {
  Index n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  return error == std::errc() && end == text.data() + text.size() && n > 0 ? n : 0;
}

// "FILE", "FILE,steps=5", "FILE,steps=5-8"
ProfileOptions profile_options(const Options& o) {
  ProfileOptions out{.split = o.split, .trace = o.spans, .force = o.run.force};
  const std::string key = ",steps=";
  const std::size_t at = o.spans.rfind(key);
  if (at == o.spans.npos)
    return out;
  out.trace = o.spans.substr(0, at);
  const std::string steps = o.spans.substr(at + key.size());
  const std::size_t dash = steps.find('-');
  out.first = step_number(steps.substr(0, dash));
  out.last = dash == steps.npos ? out.first : step_number(steps.substr(dash + 1));
  if (out.first == 0 || out.last < out.first || out.trace.empty()) {
    throw Error(Exit::usage, concat("--profile-trace '", o.spans,
                                    "' does not say a file and which steps of the run"))
        .hint("--profile-trace out.json,steps=5-8");
  }
  return out;
}

std::optional<Move> move_of(const std::string& word) {
  if (word == "cheaper")
    return {};
  return word == "weights" ? Move::weights : Move::tokens;
}

int resume(const Options& o, const CommandLine& cli) {
  refuse_changes(cli, o.resume);
  return resume_run(o.resume,
                    {.horizon = cli.given("--steps") ? o.run.train.steps : -1,
                     .device = cli.given("--device") ? o.device.device : "",
                     .trace = o.run.trace,
                     .accept_changed_data = o.data_changed == "accept",
                     .accept_changed_version = o.version_changed == "accept"},
                    o.device, o.layout, profile_options(o));
}

void refuse_options_of_resume(const CommandLine& cli) {
  for (const std::string option : {"--data-changed", "--version-changed"}) {
    if (cli.given(option)) {
      throw Error(Exit::usage,
                  concat(option, " is for --resume: a new run has nothing to differ from"))
          .hint(concat("moe train --resume RUN ", option, " accept"));
    }
  }
}

// Lanes and micro-batches where they were left to the number of ranks, and the same in the options
// that a run remembers; what only says who computes is no part of them.
void settle_lanes(Options& o, const CommandLine& cli, const Comm& comm) {
  TrainOptions& t = o.run.train;
  if (!cli.given("--lanes"))
    t.lanes = comm.size();
  if (!cli.given("--accumulate"))
    t.accumulate = t.lanes;
  nlohmann::json options = nlohmann::json::parse(options_json(cli));
  for (const char* layout :
       {"patience", "zero", "ep", "move", "ep-send", "ep-nodes", "profile", "profile-trace"})
    options.erase(layout);
  if (t.lanes > 1) {
    options["lanes"] = concat(t.lanes);
    options["accumulate"] = concat(t.accumulate);
  }
  o.run.options = options.dump();
  const bool implied = !cli.given("--lanes") || !cli.given("--accumulate");
  if (!comm.alone() && implied && t.lanes >= comm.size()) {
    note(fmt::format(
        "{} ranks; one process computes the same bytes with: --lanes {} --accumulate {}",
        comm.size(), t.lanes, t.accumulate));
  }
}

Send send_of(const std::string& word) {
  return word == "nodes" ? Send::nodes : word == "once" ? Send::once : Send::rows;
}

// What says how experts are shared out means nothing where they are not.
void refuse_without_ep(const Options& o, const CommandLine& cli) {
  if (o.layout.expert_ranks > 1)
    return;
  for (const auto& [option, what, example] :
       {std::tuple{"--move", "says what crosses", " --move cheaper"},
        std::tuple{"--ep-send", "says how often a row crosses", " --ep-send once"},
        std::tuple{"--ep-nodes", "says the nodes of what crosses", " --ep-nodes 2"}}) {
    if (cli.given(option)) {
      throw Error(Exit::usage,
                  concat(option, " ", what, " between the ranks of --ep, and there is none"))
          .hint(
              concat("mpirun -np 4 moe train --ep 4", example, " ...; or leave ", option, " out"));
    }
  }
}

// What ranks share and what crosses between them.
Comm& open_layout(Options& o, const CommandLine& cli) {
  o.layout.move = move_of(o.move);
  o.layout.send = send_of(o.send);
  refuse_without_ep(o, cli);
  if (o.run.trace_ranks && o.run.trace.empty()) {
    throw Error(Exit::usage,
                "--trace-ranks says what a trace records of ranks, and there is no --trace")
        .hint("--trace FILE --trace-ranks; or leave --trace-ranks out");
  }
  Comm& comm = open_ranks(o.ranks);
  if (comm.alone() && o.layout.zero > 0)
    note(concat("--zero ", o.layout.zero, " changes nothing: one process holds everything"));
  if (o.layout.expert_ranks > 1)
    o.layout.nodes = nodes_of_ranks(comm, o.layout.expert_ranks, o.nodes);
  return comm;
}

int train(Options& o, const CommandLine& cli) {
  o.run.device = o.device.device;
  if (!o.parts.empty())
    o.run.train.trained = join(o.parts, ";");
  Comm& comm = open_layout(o, cli);
  if (!o.resume.empty())
    return resume(o, cli);
  settle_lanes(o, cli, comm);
  refuse_options_of_resume(cli);
  if (!o.special.empty())
    o.run.data = with_special(o.run.data, o.special);
  if (!o.task.empty())
    o.run.data = with_task(o.run.data, o.task);
  const ModelConfig config = config_of(o, cli);
  if (o.dry)
    return comm.first() ? dry_run(config, o.run, o.layout, comm.size()) : 0;
  if (o.run.data.empty() && o.save_dtype.empty()) {
    throw Error(Exit::usage, "--data is missing: nothing to train on")
        .hint("--data system, or --data text:path=FOLDER");
  }
  if (o.run.folder.empty())
    throw Error(Exit::usage, "-o is missing: where should the run be kept?").hint("-o runs/a");
  if (o.save_dtype.empty())
    return start_run(config, o.run, o.device, o.layout, profile_options(o));
  refuse_ranks("moe train --save-dtype");
  if (profile_options(o).wanted())
    throw Error(Exit::usage, "--save-dtype makes no step, so there is no time to profile");
  return write_initial(config, o.run, o.save_dtype, o.device);
}

void add_probes(CommandLine& cli, Options& o) {
  const OptionGroup probes(cli, "probes");
  probes.flag("--profile", o.split,
              "say in metrics.jsonl where the time of a step goes: routing, plan, exchange, "
              "products, ...; changes no other byte");
  probes.text("--profile-trace", o.spans, "FILE",
              "the spans of three steps as a trace for Perfetto or Chrome; "
              "FILE,steps=5-8: of those steps");
  probes.flag("--noise-scale", o.run.train.noise_scale,
              "estimate the gradient noise scale at logged steps, of the model and of each expert; "
              "needs --accumulate and --lanes of 2 or more");
}

void add_ranks(CommandLine& cli, Options& o) {
  add_patience(cli, o.ranks);
  cli.add_option("--ep", o.layout.expert_ranks,
                 "of several ranks: so many share the experts out among them, and rows of tokens "
                 "cross; a divisor of their number; default: 1")
      .type_name("N")
      .check(whole(1));
  cli.add_option("--zero", o.layout.zero,
                 "of several ranks: 1 = each holds the optimiser's moments of its own share, 2 = "
                 "and of the gradients, 3 = and of the weights; the bytes are the same")
      .type_name("0|1|2|3")
      .check(whole(0, 3));
  cli.add_option("--move", o.move,
                 "with --ep: what crosses between ranks, rows of tokens or weights of experts, or "
                 "what is fewer bytes; the bytes of the run are the same")
      .type_name("tokens|weights|cheaper")
      .show_default()
      .check(one_of({"tokens", "weights", "cheaper"}));
  cli.add_option("--ep-send", o.send,
                 "with --ep: a token with several experts elsewhere sends its row for every one, "
                 "once to each rank, or once to each node, where it is handed on; the bytes of the "
                 "run are the same")
      .type_name("rows|once|nodes")
      .show_default()
      .check(one_of({"rows", "once", "nodes"}));
  cli.add_option("--ep-nodes", o.nodes,
                 "with --ep: so many nodes, on which its ranks stand in order; default: the hosts "
                 "of the ranks")
      .type_name("N")
      .check(whole(1));
}

}  // namespace

Run train_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  add_data(cli, o->run.data, false);
  add_special_tokens(cli, o->special);
  cli.add_option(
         "--task", o->task,
         "what is made of the text, for an encoder-decoder: denoise (spans are taken out of "
         "the source and written by the decoder), denoise:density=0.15,span=3,sentinels=32")
      .type_name("SPEC");
  cli.add_option("--tokenizer", o->run.tokenizer,
                 "text to ids: bytes, bpe:vocab=4096 trained on this text, or a tokenizer.json or "
                 "its folder (moe list tokenizers)")
      .type_name("SPEC")
      .show_default();
  add_model(cli, o->model);
  add_training(cli, *o);
  add_saving(cli, *o);
  add_probes(cli, *o);
  add_device(cli, o->device);
  add_ranks(cli, *o);
  cli.add_option("-o,--output", o->run.folder, "the run folder to make").type_name("FOLDER");
  cli.add_option("--resume", o->resume, "a run folder: go on from its newest valid checkpoint")
      .type_name("FOLDER");
  for (const auto& [option, value, what] :
       {std::tuple{"--data-changed", &o->data_changed, "data are not those"},
        std::tuple{"--version-changed", &o->version_changed, "program is not the version"}}) {
    cli.add_option(
           option, *value,
           concat("with --resume, where the ", what, " the run began with: refuse, or accept that"))
        .type_name("WHICH")
        .show_default()
        .check(one_of({"refuse", "accept"}));
  }
  cli.add_option("--init", o->run.init,
                 "start from this checkpoint's weights (a fresh optimizer); --router, --balance "
                 "and --capacity may differ")
      .type_name("FOLDER");
  cli.add_flag("--dry-run", o->dry, "say sizes, FLOPs, memory and disk; build nothing");
  cli.add_flag("--force", o->run.force, "replace a run folder that exists");
  add_config(cli);
  return [o, cli] {
    return train(*o, cli);
  };
}

}  // namespace moe
