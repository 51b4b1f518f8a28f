// moe trace: runs a checkpoint over data without gradients and records every routing decision.
#include <fmt/format.h>

#include <optional>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/experts.h"
#include "apps/output.h"
#include "apps/provenance.h"
#include "apps/ranks.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "datasets/text_domains.h"
#include "lib/core/rng.h"
#include "lib/core/spec_lists.h"
#include "lib/router/router.h"
#include "lib/run/evaluation.h"
#include "lib/run/origin.h"
#include "lib/run/packed_rows.h"
#include "lib/run/recorder.h"
#include "lib/run/run_folder.h"
#include "lib/run/same_on_ranks.h"

namespace moe {
namespace {

struct Options {
  std::string model, output, options, router, special;
  std::vector<std::string> data, prompts;
  std::string durability = "process";
  BatchOptions batches;
  Index redundancy_tokens = 256;
  int top_k = 0;  // 0 = as trained
  std::uint64_t seed = 1;
  bool force = false, out_norm = false, logits = false, matched = false;
  DeviceOptions device;
  ExpertOptions experts;
  RankChoices ranks;
};

// What is recorded: batches of a corpus, or prompts, and what the header says of them.
struct Source {
  std::function<void(TraceHeader&, const Provenance&, const std::string& model)> describe;
  int boundary = -1;  // id that is marked special
  Index tokens = 0;
  std::string order;
  bool modalities = false;  // rows have them
  using EachBatch = std::function<bool(const Batch&, Rng&)>;
  std::function<void(const EachBatch&)> for_each;
};

Source corpus_source(const Options& o, const ModelConfig& config, const Tokenizer& tokenizer,
                     const Corpus& corpus) {
  const EvalBatches batches = batches_of(o.batches, config, o.seed);
  return {.describe =
              [&](TraceHeader& h, const Provenance& p, const std::string& model) {
                describe_source(h, p, model, tokenizer, corpus, o.seed);
              },
          .boundary = corpus.boundary(),
          .tokens = token_count(corpus, batches),
          .order = o.batches.order,
          .modalities = corpus.info().modalities,
          .for_each =
              [&corpus, batches](const Source::EachBatch& each) {
                for_each_batch(corpus, batches, each);
              }};
}

// A sequence of its own, as a document begins.
Batch prompt_batch(const std::string& text, const Tokenizer& tokenizer, SpecialText special,
                   Index context) {
  Batch batch;
  batch.token = document_opening(tokenizer);
  const std::vector<int> ids = tokenizer.encode(text, {.special = special}).ids;
  batch.token.insert(batch.token.end(), ids.begin(), ids.end());
  if (ids.empty())
    throw Error(Exit::usage, "--prompt has no text in it").hint("--prompt \"Once upon a time\"");
  if (batch.tokens() > context) {
    throw Error(Exit::usage, concat("the prompt has ", batch.tokens(),
                                    " tokens and the model a context of ", context))
        .hint("a shorter prompt, or --data text:path=FILE, which is cut into pieces");
  }
  batch.target.assign(batch.token.begin() + 1, batch.token.end());
  batch.target.push_back(-1);
  batch.start = {0, batch.tokens()};
  return batch;
}

Source prompt_source(const Options& o, const ModelConfig& config, const Tokenizer& tokenizer,
                     std::vector<Batch>& batches) {
  const SpecialText special = o.special == "text"  ? SpecialText::text
                              : o.special == "ids" ? SpecialText::ids
                                                   : SpecialText::own;
  Index tokens = 0;
  for (const std::string& text : o.prompts) {
    batches.push_back(prompt_batch(text, tokenizer, special, config.context));
    tokens += batches.back().tokens();
  }
  return {.describe =
              [&](TraceHeader& h, const Provenance& p, const std::string& model) {
                describe_source(h, p, model, tokenizer, o.seed);
              },
          .boundary = tokenizer.boundary(),
          .tokens = tokens,
          .for_each =
              [&](const Source::EachBatch& each) {
                Rng rng(o.seed);
                for (const Batch& batch : batches) {
                  if (!each(batch, rng))
                    return;
                }
              }};
}

// What is compared of the experts: their weights, and what they put out of so many rows.
struct Compared {
  bool weights = false;
  Index rows = 0;
};

TraceHeader header_of(const Options& o, const LoadedModel& loaded, const Source& source,
                      const Compared& compared) {
  TraceHeader h = trace_header(*loaded.model);
  source.describe(h, provenance_of(o.options), loaded.checkpoint.path.string());
  name_places(h, loaded.model->config());
  h.checkpoint_step = loaded.checkpoint.step;
  describe_origin(h, loaded);
  h.sequence_order = source.order;
  if (!compared.weights)
    return h;
  h.pairs = weight_similarity(*loaded.model, o.matched);
  const auto shape = h.pairs[0].layer;
  if (compared.rows > 0) {
    // declared here, measured on the way
    for (const std::string& name : OutputSimilarity::names())
      h.pairs.push_back({name, shape});
  }
  return h;
}

LoadedModel open_model(const Options& o, Backend<float>& device) {
  LoadedModel loaded = load_model(
      o.model, device,
      {.holding = holding(o.experts), .router = o.router, .k = o.top_k, .head = Head::optional});
  report_loading(loaded, o.model);
  const auto layers = loaded.model->moe_layers();
  if (layers.empty()) {
    throw Error(Exit::input,
                concat("'", o.model, "' is a dense model: it has no routing to record"))
        .hint("moe eval measures its loss");
  }
  const RouterFacts router = layers[0]->router().facts();
  if (router.causal && !router.causal_in_training) {
    note(concat("the router ", layers[0]->config().router,
                " was not causal in training, where it balanced whole batches; here each token "
                "chooses for itself"));
  }
  return loaded;
}

// Batches of several ranks are computed beside each other.
void refuse_order(const LoadedModel& loaded, const Options& o) {
  refuse_ranks_to_replay(*loaded.model);
  if (!o.prompts.empty())
    refuse_ranks("moe trace --prompt");
}

// Pair matrices grow with the square of the experts.
bool compares_pairs(const LoadedModel& loaded) {
  const int experts = loaded.model->config().moe.experts;
  if (loaded.holding.numbers == Keep::cached) {
    note("the experts are not in memory together: their similarity is left out of the trace");
    return false;
  }
  if (experts <= most_paired_experts)
    return true;
  note(
      fmt::format("{} experts make {} pairs a layer: their similarity is left out of the trace "
                  "(it is measured up to {})",
                  experts, count_text(0.5 * experts * (experts - 1.0)), most_paired_experts));
  return false;
}

Compared compared_of(const Options& o, const LoadedModel& loaded) {
  if (!compares_pairs(loaded))
    return {};
  if (o.redundancy_tokens > 0 && loaded.model->config().has_experts_of_attention()) {
    note(
        "what experts of attention put out depends on other rows: how alike outputs are is left "
        "out of the trace");
    return {.weights = true};
  }
  return {.weights = true, .rows = o.redundancy_tokens};
}

// Of a batch: what its rank sends to the one that writes, besides rows.
struct BatchLoss {
  double nats = 0, targets = 0;
};

// Runs batches and appends what the layers decided, and how alike their experts' outputs are. Of
// several ranks each runs one batch of a round, and rank 0 appends them in order; but the first
// ones, on which all experts are compared, are rank 0's alone.
class Recording {
 public:
  // writer: rank 0's; null on the others
  Recording(const LoadedModel& loaded, TraceWriter* writer, const TraceFields& fields, int boundary,
            Index redundancy_tokens, Comm& comm)
      : model_(*loaded.model),
        headless_(loaded.headless),
        writer_(writer),
        fields_(fields),
        boundary_(boundary),
        outputs_(*loaded.model, redundancy_tokens),
        comm_(comm) {
    comparing_ = outputs_.wants_more();
  }

  void add(const Batch& batch, Rng& rng) {
    seen_ += batch.tokens();
    if (comm_.alone())
      return run(batch, rng);
    if (comparing_) {
      if (comm_.first())
        run(batch, rng);
      comparing_ = comm_.from_first({"compares outputs"}, outputs_.wants_more() ? "yes" : "") != "";
      return;
    }
    if (in_round_++ == comm_.rank())
      run(batch, rng);
    if (in_round_ == comm_.size())
      end_round();
  }
  // Everybody's batches of this round go to the writer.
  void end_round() {
    if (in_round_ == 0)
      return;
    std::vector<ConstBytes> send(std::size_t(comm_.size()));
    send[0] = comm_.first() ? ConstBytes{} : rows_.bytes();
    const auto rows = comm_.exchange({"rows of the trace"}, send);
    const auto losses = comm_.gather<BatchLoss>({"losses of batches"}, std::span(&loss_, 1));
    for (int r = 1; r < in_round_; ++r) {
      if (comm_.first()) {
        PackedRows::for_each(rows[std::size_t(r)],
                             [&](const std::vector<SequenceRows>& batch) { append(batch); });
      }
      count(losses[std::size_t(r)][0]);
    }
    in_round_ = 0;
    rows_ = {};
  }
  bool between_rounds() const {
    return in_round_ == 0;
  }

  // "loss 2.345", or nothing of a model without output matrix
  std::string loss(int digits) const {
    if (headless_)
      return "";
    return fmt::format("loss {:.{}f}", targets_ > 0 ? nats_ / targets_ : 0, digits);
  }
  std::int64_t steps() const {
    return step_;
  }
  Index tokens() const {  // of the batches so far
    return seen_;
  }
  const OutputSimilarity& outputs() const {
    return outputs_;
  }

 private:
  void run(Batch batch, Rng& rng) {
    if (headless_)
      batch.target.clear();
    BatchRows rows(batch, 0, boundary_);
    Decoder<float>::Tape tape;
    model_.infer({.batch = batch, .rng = &rng}, tape,
                 [&](int n, const MoeTape<float>& t, View<const float> x) {
                   rows.layer(n, t, fields_, model_.config().in_encoder(model_.layer_of(n)));
                   if (comm_.first() && outputs_.wants_more())
                     outputs_.see(n, x, t.routing.expert);
                 });
    outputs_.batch_done();
    if (!headless_)
      rows.predictions(tape);
    loss_ = {tape.loss * double(tape.targets), double(tape.targets)};
    if (!writer_)
      return rows_.add(rows);
    append(rows.sequences());
    count(loss_);
  }
  void append(const std::vector<SequenceRows>& rows) {
    writer_->step({.step = step_++, .phase = Phase::eval});
    moe::append(rows, *writer_);
  }
  void count(const BatchLoss& loss) {
    nats_ += loss.nats;
    targets_ += loss.targets;
  }

  Decoder<float>& model_;
  bool headless_;
  TraceWriter* writer_;
  const TraceFields& fields_;
  int boundary_;
  OutputSimilarity outputs_;
  Comm& comm_;
  bool comparing_ = false;
  int in_round_ = 0;  // batches begun
  PackedRows rows_;   // of this rank's batch, where another one writes
  BatchLoss loss_;
  std::int64_t step_ = 0;
  Index seen_ = 0;
  double nats_ = 0, targets_ = 0;
};

int stopped(const Options& o, TraceWriter& writer, std::int64_t steps, int signal) {
  writer.commit(steps);
  note(
      fmt::format("stopped after {} tokens, which are safe in {}.part; make them a trace with: "
                  "moe recover {}.part -o {}",
                  writer.safe_rows(), o.output, o.output, o.output));
  return 128 + signal;
}

void tell(const Options& o, const LoadedModel& loaded, std::uint64_t rows, double seconds,
          const std::string& loss) {
  note(fmt::format("{} tokens x {} layers in {} ({} tok/s){}{}; wrote {}", rows,
                   loaded.model->moe_layers().size(), duration_text(seconds),
                   count_text(double(rows) / seconds), loaded.headless ? "" : ", ", loss,
                   o.output));
  next_step(concat("moe report ", shell_quoted(o.output)));
}

// Writes the trace of a model over what the source holds.
int record(const Options& o, const LoadedModel& loaded, const Source& source) {
  TraceFields fields = trace_fields(*loaded.model);
  fields.out_norm = o.out_norm;
  fields.logits = o.logits;
  fields.modality = source.modalities;
  fields.prediction = fields.prediction && !loaded.headless;
  const Compared compared = compared_of(o, loaded);
  Comm& comm = open_ranks(o.ranks);
  std::optional<TraceWriter> file;
  if (comm.first()) {
    file.emplace(
        o.output, header_of(o, loaded, source, compared),
        TraceWriterOptions{.force = o.force, .power = o.durability == "power", .fields = fields});
  }
  Recording recording(loaded, file ? &*file : nullptr, fields, source.boundary, compared.rows,
                      comm);
  Progress progress("tokens", double(source.tokens), "tok");
  catch_stop_signals();
  source.for_each([&](const Batch& batch, Rng& rng) {
    recording.add(batch, rng);
    progress.update(double(recording.tokens()), recording.loss(3));
    return !recording.between_rounds() || !stop_together(comm);
  });
  recording.end_round();
  stop_together(comm);
  const int signal = stop_signal();
  if (!file)
    return signal ? 128 + signal : 0;
  if (signal)
    return stopped(o, *file, recording.steps(), signal);
  if (compared.rows > 0)
    file->pairs(recording.outputs().result());
  file->finish();
  tell(o, loaded, file->rows(), progress.seconds(), recording.loss(4));
  return 0;
}

int record_prompts(const Options& o, const LoadedModel& loaded) {
  const auto tokenizer = tokenizer_of(loaded);
  if (!tokenizer) {
    throw Error(Exit::usage, "this model comes without a tokenizer, so it can be given no prompt")
        .hint("--data tokens:path=FILE takes ids, as its tokenizer makes them");
  }
  std::vector<Batch> batches;
  return record(o, loaded, prompt_source(o, loaded.model->config(), *tokenizer, batches));
}

int record_data(const Options& o, const LoadedModel& loaded) {
  const auto tokenizer = tokenizer_for(loaded, o.data);
  const ModelConfig& config = loaded.model->config();
  const auto data = o.special.empty() ? o.data : with_special(o.data, o.special);
  const auto ids = for_vocabulary(data, config.vocabulary);
  Corpus corpus(with_encoder(ids, loaded.checkpoint.path, config.vocabulary), *tokenizer, o.seed);
  corpus.begin_with(config.start_token);
  corpus.use_places(config.signal, config.vocabulary);
  require_same_reading(open_ranks({}), loaded, corpus);
  for (const std::string& n : corpus.info().notes)
    note(n);
  return record(o, loaded, corpus_source(o, config, *tokenizer, corpus));
}

int trace(const Options& o) {
  if (o.data.empty() == o.prompts.empty()) {
    throw Error(Exit::usage, o.data.empty() ? "--data is missing: nothing to record"
                                            : "--data and --prompt were both given")
        .hint("--data text:path=FOLDER, or --prompt \"Once upon a time\"");
  }
  Comm& comm = open_ranks(o.ranks);
  if (comm.first())
    refuse_existing(o.output, o.force);
  const auto device = open_device(o.device);
  const LoadedModel loaded = open_model(o, *device);
  if (!comm.alone())
    refuse_order(loaded, o);
  return o.prompts.empty() ? record_data(o, loaded) : record_prompts(o, loaded);
}

}  // namespace

Run trace_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("model", o->model, "a run, a checkpoint, a Hugging Face folder, or a GGUF file")
      .required();
  add_data(cli, o->data, false);
  cli.add_option("--prompt", o->prompts,
                 "text to record in place of --data, a sequence; may be given again")
      .repeatable()
      .type_name("TEXT");
  add_special_tokens(cli, o->special);
  add_router(cli, o->router);
  add_top_k(cli, o->top_k, "--top-k,--experts-per-token");
  cli.add_option("-o,--output", o->output, "the trace to write, NAME.moetrace.h5")
      .type_name("FILE")
      .required();
  add_batches(cli, o->batches);
  cli.add_option("--redundancy-tokens", o->redundancy_tokens,
                 "tokens on which all experts run, to compare their outputs; 0 = none")
      .show_default()
      .check(whole(0));
  cli.add_flag("--matched-neurons", o->matched,
               "compare experts also with their hidden units matched one to one: takes width^3 "
               "steps a pair");
  cli.add_flag("--out-norm", o->out_norm,
               "record the norm of each chosen expert's output (the REAP score reads it)");
  cli.add_flag(
      "--logits", o->logits,
      "record every expert's logit, in 16 bits each (moe list balance --values reads them)");
  cli.add_option("--durability", o->durability,
                 "process: rows survive a kill; power: a power cut too")
      .type_name("WHICH")
      .show_default()
      .check(one_of({"process", "power"}));
  cli.add_option("--seed", o->seed, "for routers that draw").show_default().check(whole(0));
  cli.add_flag("--force", o->force, "replace a file that exists");
  add_device(cli, o->device);
  add_patience(cli, o->ranks);
  add_experts(cli, o->experts);
  add_config(cli);
  return run_with(cli, std::move(o), trace);
}

}  // namespace moe
