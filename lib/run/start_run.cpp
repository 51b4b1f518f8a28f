#include "lib/run/start_run.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/config_like.h"
#include "lib/files/any_bytes.h"
#include "lib/files/file.h"
#include "lib/model/config.h"
#include "lib/model/copy_weights.h"
#include "lib/model/cost.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/router.h"
#include "lib/run/data_identity.h"
#include "lib/run/few_bits_experts.h"
#include "lib/run/lazy_experts.h"
#include "lib/run/leftovers.h"
#include "lib/run/origin.h"
#include "lib/run/program_version.h"
#include "lib/run/resumed_trace.h"
#include "lib/run/router_warnings.h"
#include "lib/run/same_on_ranks.h"
#include "lib/run/step_memory.h"
#include "lib/run/this_machine.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

void write_run_json(const fs::path& folder, const RunState& s, const ModelConfig& config,
                    const Provenance& p, const Corpus* corpus) {
  const ModelCost cost = cost_of(config, s.train.sequences * s.train.length);
  Json run = {{"format", "moe-run"},
              {"version", 1},
              {"moe", p.version},
              {"command", escaped(p.command)},
              {"created_utc", p.created_utc},
              {"options", Json::parse(s.options)},
              {"model", s.model},
              {"data", escaped_all(s.data)},
              {"tokenizer", escaped(s.tokenizer)},
              {"run_id", s.run_id},
              {"lineage", s.lineage},
              {"seed", s.train.seed},
              {"steps", s.train.steps},
              {"parameters", cost.parameters},
              {"active_parameters", cost.active_parameters}};
  if (corpus)
    run["data_identity"] = data_identity(*corpus);
  write_json(folder / "run.json", run);
}

void refuse_folder(const fs::path& folder, bool force) {
  if (!fs::exists(folder) || (fs::is_directory(folder) &&
                              std::ranges::all_of(fs::directory_iterator(folder), is_leftover))) {
    return;
  }
  const std::string name = folder.string();
  if (!fs::exists(folder / "run.json")) {
    throw Error(Exit::usage, concat("'", name, "' exists and is not a run of moe",
                                    force ? "; --force replaces runs only" : ""))
        .hint("another -o")
        .safe("it was not touched");
  }
  if (!force) {
    throw Error(Exit::usage, concat("the run '", name, "' exists"))
        .hint(
            concat("moe train --resume ", name, " to go on, --force to replace it, or another -o"))
        .safe("it was not touched");
  }
}

void refuse_trace(const ModelConfig& config, const RunOptions& o) {
  if (config.moe_layers() == 0)
    throw Error(Exit::usage, "a dense model has no routing to record").hint("leave --trace out");
  refuse_existing(o.trace, o.force);
  if (!o.force && fs::exists(o.trace + ".part")) {
    throw Error(
        Exit::usage,
        concat("'", o.trace, ".part' exists: a recording that was interrupted, or still runs"))
        .hint(concat("moe recover ", o.trace, ".part -o FILE keeps its rows; --force replaces it"));
  }
}

// Routers and balancers that cannot train, or not as they say.
void refuse_untrainable(const ModelConfig& config) {
  if (config.moe_layers() > 0 &&
      router_facts(config.moe.router, config.moe.experts).needs_recorded_routes) {
    throw Error(Exit::usage,
                "a replay follows a trace token by token, and training draws batches and validates "
                "between them")
        .hint("moe eval or moe trace with --router replay:trace=FILE");
  }
}

// Ids of the text, and the places of all that the model reads besides.
int ids_of(const Corpus& corpus, const ModelConfig& config) {
  return corpus.info().vocabulary - place_ids(corpus.info().signals) + place_ids(config.signal);
}

// Rows of the embedding: those that the data need, or those of the weights a run starts from, which
// the data must fit. A published model may have more rows than its tokenizer has ids; whoever reads
// bytes was trained on them.
int vocabulary_for(const ModelConfig& config, const RunOptions& o, const Corpus& corpus,
                   const Tokenizer& tokenizer) {
  // padding has no position, so that it needs an id of its own
  const int needed = ids_of(corpus, config) + (config.sinusoidal && config.pad_token < 0);
  if (o.init.empty())
    return needed;
  const bool of_file = !corpus.info().bare_ids && tokenizer.id() != "bytes";
  if (of_file ? config.vocabulary < needed : config.vocabulary != needed) {
    throw Error(Exit::usage, concat("'", o.init, "' has a vocabulary of ", config.vocabulary,
                                    " and the tokenizer ", tokenizer.id(), " one of ", needed))
        .hint("the tokenizer the checkpoint was trained with");
  }
  return config.vocabulary;
}

// What the data bring besides text becomes what the model reads, where it leaves that open.
void fit_signals(ModelConfig& config, const Corpus& corpus, bool open) {
  for (const SignalShape& s : corpus.info().signals) {
    if (!find_signal(config.signal, s.modality) && open)
      config.signal.push_back(s);
  }
  std::ranges::sort(config.signal, {}, &SignalShape::modality);
}

// Tells what was left out of the data, and refuses those that training would spoil.
void hear_of_data(const Corpus& corpus, TrainingObserver& observer) {
  for (const std::string& n : corpus.info().notes)
    observer.note(n);
  if (corpus.split() == Split::valid) {
    throw Error(Exit::usage,
                "--data has split=valid, and training on the validation split would spoil it")
        .hint("leave split= out");
  }
}

// Counts of token ids in the first batches of a run, a million tokens at most.
std::vector<std::int64_t> count_ids(const Corpus& corpus, const TrainOptions& t, int vocabulary) {
  constexpr Index enough = 1'000'000;
  const Index batches =
      std::min(t.steps * t.accumulate, std::max<Index>(1, enough / (t.sequences * t.length)));
  std::vector<std::int64_t> counts(std::size_t(vocabulary), 0);
  for (Index n = 0; n < batches; ++n) {
    for (const int id : corpus.train(std::uint64_t(n), int(t.sequences), int(t.length)).token)
      ++counts[std::size_t(id)];
  }
  return counts;
}

// Gives the counts to the routers whose table balances them.
void learn_tables(Decoder<float>& model, const Corpus& corpus, const TrainOptions& t) {
  std::vector<std::int64_t> counts;
  for (auto* layer : model.moe_layers()) {
    auto* table = capability<LearnsFromText>(layer->router());
    if (!table)
      continue;
    if (counts.empty())
      counts = count_ids(corpus, t, model.config().vocabulary);
    table->learn(counts);
  }
}

// A run folder without its run.json would be nobody's: both names are on disk before what follows.
void settle_names(const fs::path& folder, const std::string& trace) {
  if (!trace.empty() && !lies_in(trace, folder))
    write_machine(folder);
  sync_folder(folder);
  sync_folder(fs::absolute(folder / "..").lexically_normal());
}

// What a run holds; whatever else lies in the folder stays.
void clear_run(const fs::path& folder) {
  for (const auto step : checkpoint_steps(folder))
    fs::remove_all(folder / checkpoint_name(step));
  std::vector<fs::path> old = {folder / "metrics.jsonl"};
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename() != "lock" && is_leftover(entry.path()))
      old.push_back(entry.path());
  }
  for (const fs::path& path : old)
    fs::remove(path);
  fs::remove(folder / "machine.json");
  fs::remove(folder / "run.json");
}

// Weights of a checkpoint, and what its reader should know: tensors left out, and a class that will
// not open what is written. Returns the trainings that it comes from.
std::vector<std::string> start_from(const LoadedModel& from, Decoder<float>& model,
                                    TrainingObserver& observer) {
  for (const std::string& n : from.checkpoint.notes)
    observer.warning(n);
  copy_weights(*from.model, model);
  const Fit fit = fit_like(model.config(), from.family);
  if (from.family != "moe" && fit.family == "moe") {
    observer.note(concat("checkpoints of this run keep this program's own form, not that of ",
                         from.family, ": ", fit.reason));
  }
  if (from.holding.numbers == Keep::experts_as_stored) {
    observer.note(
        "experts stay in few bits, frozen, and are decoded each time products read them; "
        "checkpoints hold the same bytes of them");
  }
  return lineage_of(from);
}

// A table of no counts, for weights that are written before any data is seen.
void learn_nothing(Decoder<float>& model) {
  for (auto* layer : model.moe_layers()) {
    if (auto* table = capability<LearnsFromText>(layer->router()))
      table->learn(std::vector<std::int64_t>(std::size_t(model.config().vocabulary), 0));
  }
}

void refuse_initial(const RunOptions& o) {
  if (o.train.steps != 0) {
    throw Error(Exit::usage, concat("--save-dtype writes weights alone, and a run of ",
                                    o.train.steps, " steps must be able to go on where it stopped"))
        .hint(
            "--steps 0; of a trained run: moe train --init RUN --steps 0 --save-dtype bf16 -o NEW");
  }
  if (!o.trace.empty()) {
    throw Error(Exit::usage, "no step is made, so there is no routing to record")
        .hint("leave --trace out");
  }
  refuse_folder(o.folder, o.force);
}

// The tokenizer of a new run.
std::shared_ptr<const Tokenizer> tokenizer_of(const RunOptions& o) {
  return o.init.empty() ? tokenizer_for_run(o.tokenizer, o.data) : initial_tokenizer(o.init);
}

// Of the checkpoint that a run starts from; nothing where it starts from none.
std::shared_ptr<const KeptFiles> kept_for(const std::string& init, const Tokenizer& tokenizer) {
  return init.empty() ? std::make_shared<const KeptFiles>()
                      : files_kept(read_checkpoint_config(init).path, tokenizer);
}

// A tokenizer whose ids a model does not all have.
void refuse_few_ids(const ModelConfig& config, const Tokenizer& tokenizer) {
  const int places = place_ids(config.signal);
  if (config.vocabulary - places < tokenizer.vocabulary()) {
    throw Error(Exit::usage, concat("the model has ", config.vocabulary - places,
                                    " token ids and the tokenizer ", tokenizer.id(), " ",
                                    tokenizer.vocabulary()))
        .hint(concat("--model ...:vocabulary=", tokenizer.vocabulary() + places));
  }
}

}  // namespace

namespace {

// What a new run reads: the tokenizer that --tokenizer or --init names, the texts, and the
// tokenizer of their ids where those come with one.
struct RunData {
  std::shared_ptr<const Tokenizer> asked;
  Corpus corpus;
  std::shared_ptr<const Tokenizer> tokenizer;
  int vocabulary;
};

RunData open_data(ModelConfig& config, const RunOptions& o, TrainingObserver& observer,
                  std::shared_ptr<const Tokenizer> asked) {
  Corpus corpus(o.init.empty() ? o.data : for_vocabulary(o.data, config.vocabulary), *asked,
                o.train.seed);
  const auto tokenizer = corpus.info().pieces ? corpus.info().pieces : asked;
  fit_signals(config, corpus, o.init.empty());
  const int vocabulary = vocabulary_for(config, o, corpus, *tokenizer);
  corpus.use_places(config.signal, vocabulary);
  hear_of_data(corpus, observer);
  return {std::move(asked), std::move(corpus), tokenizer, vocabulary};
}

// An encoder-decoder and its data fit each other, and the ids that the model leaves open are those
// of the data.
void fit_sources(ModelConfig& config, const Corpus& corpus) {
  if (corpus.has_sources() != (config.encoder_layers > 0)) {
    throw Error(Exit::usage,
                corpus.has_sources()
                    ? "the data have a source for each sequence, and this model has no "
                      "encoder to read it"
                    : "this model has an encoder, and the data have no source for it")
        .hint(corpus.has_sources() ? "--model t5-toy, switch-t5-toy or nllb-toy (moe list models)"
                                   : "--task denoise, or --data pairs:path=FILE.tsv");
  }
  if (config.encoder_layers == 0)
    return;
  if (config.start_token < 0)
    config.start_token = corpus.info().start;
  if (config.pad_token < 0)
    config.pad_token = config.sinusoidal ? config.vocabulary - 1 : config.start_token;
}

void warn_of_router(TrainingRun& run, TrainingObserver& observer) {
  const ModelConfig& config = run.setup.model->config();
  const TrainOptions& train = run.setup.state.train;
  for (const auto& sentences : {router_warnings(config), router_training_warnings(config),
                                step_warnings(config, train.accumulate, train.lanes)}) {
    for (const std::string& sentence : sentences) {
      observer.warning(sentence);
      run.log.warning(sentence);
    }
  }
}

}  // namespace

void refuse_size(const ModelConfig& config, const TrainOptions& t, const RunContext& context,
                 double few_bits) {
  const double need = step_memory(config, t, context.ranks, context.size(), few_bits).all();
  const double available = double(machine_bytes());
  if (need * context.ranks_here <= available)
    return;
  const bool several = context.ranks_here > 1;
  const std::string each = several ? concat(" for each of ", context.ranks_here, " ranks") : "";
  throw Error(Exit::memory, concat("training takes ", bytes_text(need), " of memory", each,
                                   " and this machine has ", bytes_text(available)))
      .hint(concat("a smaller --model, or a smaller --batch",
                   several ? ", or --zero and --ep, which share what ranks hold" : "",
                   "; --dry-run says what takes how much"));
}

int experts_of(const ModelConfig& config) {
  return config.moe_layers() > 0 ? config.moe.experts : 0;
}

ProfileOptions profile_of(const RunContext& context, Index done, Index horizon,
                          const fs::path& folder, TrainingObserver& observer) {
  if (!context.profile.wanted() || !context.writes())
    return {};
  if (context.comm && !context.comm->alone()) {
    observer.note(concat("the profile is that of rank 0 of ", context.comm->size(),
                         ": what it computes and what it waits for"));
  }
  return settled(context.profile, done, horizon, folder);
}

RunState state_of(const ModelConfig& config, const RunOptions& o) {
  RunState s;
  s.train = o.train;
  s.train.length = o.length > 0 ? o.length : config.context;
  if (s.train.length > config.context) {
    throw Error(Exit::usage, concat("--length ", s.train.length,
                                    " is more than the model's context of ", config.context))
        .hint(concat("--length ", config.context, ", or --model ...:context=", s.train.length));
  }
  s.data = o.data;
  s.tokenizer = o.tokenizer;
  s.device = o.device;
  s.options = o.options;
  s.trace = o.trace.empty() ? "" : fs::absolute(o.trace).string();
  s.trace_every = o.trace_every;
  s.trace_ranks = o.trace_ranks;
  s.save_every = o.save_every;
  s.save_minutes = o.save_minutes;
  s.keep = o.keep;
  s.eval_every = o.eval_every;
  s.log_every = o.log_every;
  s.eval_tokens = o.eval_tokens;
  refuse_impossible(s, Exit::usage, "");
  return s;
}

ModelConfig config_on_data(const ModelConfig& given, const RunOptions& o,
                           TrainingObserver& observer) {
  refuse_untrainable(given);
  ModelConfig config = given;
  const bool to_train = o.init.empty() && is_trained_first(o.tokenizer);
  if (o.data.empty()) {
    const bool named = o.init.empty() && o.tokenizer != RunOptions().tokenizer;
    if (named)
      config.vocabulary = vocabulary_for_run(o.tokenizer) + place_ids(config.signal);
    return config;
  }
  const auto asked = to_train ? tokenizer_for_run("bytes", {}) : tokenizer_of(o);
  const RunData data = open_data(config, o, observer, asked);
  config.vocabulary =
      to_train ? vocabulary_for_run(o.tokenizer) + place_ids(config.signal) : data.vocabulary;
  return config;
}

namespace {

// What can be refused before anything is opened.
void refuse_start(const ModelConfig& config, const RunOptions& o, const RunContext& context) {
  if (context.writes())
    refuse_folder(o.folder, o.force);
  if (!o.trace.empty() && context.writes())
    refuse_trace(config, o);
  refuse_untrainable(config);
  if (!o.init.empty())
    refuse_few_bits(o.init, o.train, context.ranks);
}

// Rank 0's lock on the folder, in which the run is begun; of another rank none.
std::optional<RunLock> begun(const RunOptions& o, const RunContext& context, const RunState& state,
                             Decoder<float>& model, const Corpus& corpus) {
  Parts(state.train.trained, state.train.lr_factor, model);  // refused before anything is made
  Trainer::refuse_sharing(model, context.ranks);
  if (!context.writes())
    return {};
  std::optional<RunLock> lock(std::in_place, o.folder);
  clear_run(o.folder);
  write_run_json(o.folder, state, model.config(), context.provenance, &corpus);
  settle_names(o.folder, state.trace);
  return lock;
}

// Drawn, and then what a checkpoint brings; experts in few bits are never drawn.
std::unique_ptr<Decoder<float>> made_model(const ModelConfig& config, const RunOptions& o,
                                           Backend<float>& device, const Corpus& corpus,
                                           RunState& state, TrainingObserver& observer) {
  std::optional<LoadedModel> from;
  if (!o.init.empty())
    from = load_to_train(o.init, device);
  const bool few_bits = from && from->holding.numbers == Keep::experts_as_stored;
  auto model = std::make_unique<Decoder<float>>(config, device,
                                                few_bits ? Storage::elsewhere : Storage::own);
  model->initialise(state.train.seed);
  learn_tables(*model, corpus, state.train);
  if (from)
    state.lineage = start_from(*from, *model, observer);
  return model;
}

}  // namespace

std::unique_ptr<TrainingRun> start_run(const ModelConfig& given, const RunOptions& o,
                                       const RunContext& context, TrainingObserver& observer) {
  refuse_start(given, o, context);
  ModelConfig config = given;
  RunState state = state_of(config, o);
  Trainer::refuse_layout(state.train, context.ranks, context.size(), experts_of(config));
  const ProfileOptions profile = profile_of(context, 0, o.train.steps, o.folder, observer);
  const RunData data = open_data(config, o, observer, tokenizer_of(o));
  const Corpus& corpus = data.corpus;
  const auto kept = kept_for(o.init, *data.tokenizer);
  state.tokenizer = kept_name(*data.tokenizer, *kept);
  config.vocabulary = data.vocabulary;
  fit_sources(config, corpus);
  state.data = corpus.specs();
  refuse_size(config, state.train, context, o.init.empty() ? 0 : few_bits_bytes(o.init, o.device));
  auto model = made_model(config, o, context.device(o.device), corpus, state, observer);
  state.run_id = weights_xxh3(*model);
  state.model = to_spec(model->config());
  require_same_run(context, state, corpus);
  auto lock = begun(o, context, state, *model, corpus);
  auto run = std::make_unique<TrainingRun>(TrainingRun::Setup{.folder = o.folder,
                                                              .state = std::move(state),
                                                              .model = std::move(model),
                                                              .tokenizer = data.tokenizer,
                                                              .kept = kept,
                                                              .lock = std::move(lock),
                                                              .provenance = context.provenance,
                                                              .replace_trace = o.force,
                                                              .comm = context.comm,
                                                              .ranks = context.ranks,
                                                              .profile = profile});
  warn_of_router(*run, observer);
  return run;
}

InitialWeights write_initial(const ModelConfig& given, const RunOptions& o, DType weights,
                             const RunContext& context) {
  refuse_initial(o);
  const auto tokenizer = tokenizer_of(o);
  ModelConfig config = given;
  RunState state = state_of(config, o);
  const auto kept = kept_for(o.init, *tokenizer);
  state.tokenizer = kept_name(*tokenizer, *kept);
  if (!o.data.empty()) {
    const Corpus corpus(state.data, *tokenizer, state.train.seed);
    state.data = corpus.specs();
    fit_signals(config, corpus, o.init.empty());
    config.vocabulary = std::max(o.init.empty() ? 0 : config.vocabulary, ids_of(corpus, config));
  }
  refuse_few_ids(config, *tokenizer);
  Backend<float>& device = context.device(o.device);
  const bool drawn_later = o.init.empty() && config.moe.widths.empty() && config.moe.all_ffn();
  Decoder<float> model(config, device, drawn_later ? Storage::elsewhere : Storage::own);
  model.initialise(state.train.seed);
  learn_nothing(model);
  bool bare = false;
  if (!o.init.empty()) {
    const LoadedModel from = load_model(o.init, device);
    copy_weights(*from.model, model);
    bare = tokenizer_of(from) == nullptr;
    state.lineage = lineage_of(from);
    state.run_id = weights_xxh3(model);
  }
  state.model = to_spec(model.config());
  const RunLock lock(o.folder);
  clear_run(o.folder);
  write_run_json(o.folder, state, model.config(), context.provenance, nullptr);
  const fs::path saved = save_checkpoint(o.folder, model, nullptr, state,
                                         tokenizer_files(*tokenizer, bare, kept), weights);
  return {saved, cost_of(config, 1).parameters};
}

}  // namespace moe
