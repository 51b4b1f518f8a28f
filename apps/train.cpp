// moe train: a run from its first step to its horizon, or from its newest checkpoint on.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/training_run.h"
#include "apps/values.h"

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
  std::string resume;
  bool dry = false;
};

// A new run on a checkpoint's weights: its model, with another router, balance or capacity where
// asked for.
ModelConfig config_of(Options& o, const CLI::App& cli) {
  if (o.run.init.empty())
    return model_config(model_spec(o.model));
  for (const char* fixed : {"--model", "--experts", "--width", "--dense", "--tokenizer"}) {
    if (cli.get_option(fixed)->count()) {
      throw Error(Exit::usage, concat(fixed, " cannot change what --init brings with it"))
          .hint("moe edit makes another model of a checkpoint");
    }
  }
  const Blueprint there = read_blueprint(o.run.init);
  o.run.tokenizer = there.tokenizer;
  o.model.model = to_spec(there.config);
  return model_config(model_spec(o.model));
}

void add_model(CLI::App& cli, ModelOptions& o) {
  cli.add_option("--model", o.model,
                 "preset, and fields over it: tiny:layers=6,hidden=96 (moe list models)")
      ->type_name("SPEC")
      ->capture_default_str()
      ->group("model");
  cli.add_option("--router", o.router, "who goes where (moe list routers); default: the preset's")
      ->type_name("SPEC")
      ->group("model");
  cli.add_option("--balance", o.balance,
                 "what keeps experts evenly used; may be given again; none = nothing")
      ->type_name("SPEC")
      ->expected(1)
      ->take_all()
      ->group("model");
  cli.add_option("--capacity", o.capacity, "how many slots an expert may take")
      ->type_name("SPEC")
      ->group("model");
  cli.add_option("--experts", o.experts, "number of experts")->check(whole(1))->group("model");
  cli.add_option("--width", o.width, "width of an expert")->check(whole(1))->group("model");
  cli.add_flag("--dense", o.dense, "the dense twin: the same active parameters a token, no experts")
      ->group("model");
}

void add_training(CLI::App& cli, RunOptions& o) {
  TrainOptions& t = o.train;
  cli.add_option("--steps", t.steps, "the horizon: steps in all")
      ->capture_default_str()
      ->check(whole(0))
      ->group("training");
  cli.add_option("--batch", t.sequences, "sequences of a micro-batch")
      ->capture_default_str()
      ->check(whole(1))
      ->group("training");
  cli.add_option("--length", o.length, "tokens of a sequence; default: the model's context")
      ->check(whole(1))
      ->group("training");
  cli.add_option("--accumulate", t.accumulate, "micro-batches of a step")
      ->capture_default_str()
      ->check(whole(1))
      ->group("training");
  cli.add_option("--lr", t.lr, "peak learning rate")
      ->capture_default_str()
      ->check(real(0, 1e300))
      ->group("training");
  cli.add_option("--schedule", t.schedule,
                 "cosine:warmup=,floor= | wsd:warmup=,decay=,floor= | constant:warmup=")
      ->type_name("SPEC")
      ->capture_default_str()
      ->group("training");
  cli.add_option("--decay", t.decay, "AdamW's weight decay (matrices only)")
      ->capture_default_str()
      ->check(real(0, 1e300))
      ->group("training");
  cli.add_option("--clip", t.clip, "largest gradient norm; 0 = none")
      ->capture_default_str()
      ->check(real(0, 1e300))
      ->group("training");
  cli.add_option("--train", o.parts,
                 "what trains: router | experts | experts=1,3 | shared | attention | dense | norms "
                 "| embedding | all; may be given again; the rest is frozen")
      ->expected(1)
      ->take_all()
      ->group("training");
  cli.add_option("--lr-factor", t.lr_factor,
                 "learning rate by group, times the peak: router=0.1,experts=2")
      ->group("training");
  cli.add_option("--seed", t.seed, "seed of everything random")
      ->capture_default_str()
      ->check(whole(0))
      ->group("training");
  cli.add_option("--save-every", o.save_every, "steps between checkpoints; 0 = only at the end")
      ->capture_default_str()
      ->check(whole(0))
      ->group("run");
  cli.add_option("--save-dtype", o.save_dtype,
                 "with --steps 0: write the weights alone, as f32 or bf16; such a run can be used, "
                 "but not resumed")
      ->type_name("WHICH")
      ->check(one_of({"f32", "bf16"}))
      ->group("run");
  cli.add_option("--keep", o.keep, "newest checkpoints kept")
      ->capture_default_str()
      ->check(whole(1))
      ->group("run");
  cli.add_option("--eval-every", o.eval_every, "steps between validations; 0 = only at the end")
      ->capture_default_str()
      ->check(whole(0))
      ->group("run");
  cli.add_option("--eval-tokens", o.eval_tokens,
                 "validation tokens, over all domains; 0 = the whole split")
      ->capture_default_str()
      ->check(whole(0))
      ->group("run");
  cli.add_option("--log-every", o.log_every, "steps between lines of metrics.jsonl")
      ->capture_default_str()
      ->check(whole(1))
      ->group("run");
  cli.add_option("--trace", o.trace, "record routing while training, to this file")
      ->type_name("FILE")
      ->group("run");
  cli.add_option("--trace-every", o.trace_every, "record every n-th step")
      ->capture_default_str()
      ->check(whole(1))
      ->group("run");
}

// A resumed run goes on as it was begun: only the horizon and what computes may change.
void refuse_changes(const CLI::App& app, const std::string& folder) {
  for (const CLI::Option* given : app.get_options()) {
    if (const std::string name = given->get_name(); given->count() && name != "--resume" &&
                                                    name != "--steps" && name != "--device" &&
                                                    name != "--threads" && name != "--config") {
      throw Error(Exit::usage,
                  concat(name, " belongs to the run and cannot change when it is resumed"))
          .hint(concat("moe train --resume ", folder));
    }
  }
}

}  // namespace

Run train_command(CLI::App& cli) {
  auto o = std::make_shared<Options>();
  add_data(cli, o->run.data, false);
  cli.add_option("--tokenizer", o->run.tokenizer, "text to ids (moe list tokenizers)")
      ->type_name("SPEC")
      ->capture_default_str();
  add_model(cli, o->model);
  add_training(cli, o->run);
  add_device(cli, o->run.device);
  cli.add_option("-o,--output", o->run.folder, "the run folder to make")->type_name("FOLDER");
  cli.add_option("--resume", o->resume, "a run folder: go on from its newest valid checkpoint")
      ->type_name("FOLDER");
  cli.add_option("--init", o->run.init,
                 "start from this checkpoint's weights (a fresh optimizer); --router, --balance "
                 "and --capacity may differ")
      ->type_name("FOLDER");
  cli.add_flag("--dry-run", o->dry, "say sizes, FLOPs, memory and disk; build nothing");
  cli.add_flag("--force", o->run.force, "replace a run folder that exists");
  add_config(cli);
  CLI::App* app = &cli;
  return [o, app] {
    o->run.options = options_json(*app);
    if (!o->run.parts.empty())
      o->run.train.trained = join(o->run.parts, ";");
    if (!o->resume.empty()) {
      refuse_changes(*app, o->resume);
      return resume_run(o->resume, app->get_option("--steps")->count() ? o->run.train.steps : -1,
                        o->run.device);
    }
    const ModelConfig config = config_of(*o, *app);
    if (o->dry)
      return dry_run(config, o->run);
    if (o->run.data.empty() && o->run.save_dtype.empty()) {
      throw Error(Exit::usage, "--data is missing: nothing to train on")
          .hint("--data system, or --data text:path=FOLDER");
    }
    if (o->run.folder.empty())
      throw Error(Exit::usage, "-o is missing: where should the run be kept?").hint("-o runs/a");
    return o->run.save_dtype.empty() ? start_run(config, o->run) : write_initial(config, o->run);
  };
}

}  // namespace moe
