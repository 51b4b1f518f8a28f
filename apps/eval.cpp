// moe eval: loss and perplexity of a checkpoint, per domain.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/eval_several.h"
#include "apps/eval_without.h"
#include "apps/exact_answers.h"
#include "apps/experts.h"
#include "apps/knock_out.h"
#include "apps/loss_changes.h"
#include "apps/other_k.h"
#include "apps/output.h"
#include "apps/provenance.h"
#include "apps/ranks.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "datasets/text_domains.h"
#include "lib/run/evaluation.h"
#include "lib/run/origin.h"
#include "lib/run/router_warnings.h"
#include "lib/run/run_folder.h"
#include "lib/run/same_on_ranks.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> models;
  std::string model;  // of them the one at hand
  std::string router, special;
  int top_k = 0;  // 0 = as trained
  std::vector<std::string> data;
  WithoutOptions without;
  BatchOptions batches;
  std::uint64_t seed = 1;
  DeviceOptions device;
  ExpertOptions experts;
  OutputOptions out;
  RankChoices ranks;
};

// ahead: routing depends on later tokens, and so does the loss.
Table table_of(const std::vector<DomainLoss>& losses, bool ahead) {
  std::vector<std::string> name;
  std::vector<std::int64_t> tokens;
  std::vector<double> loss, bits, perplexity;
  const auto row = [&](const std::string& n, double l, Index t) {
    name.push_back(n);
    tokens.push_back(t);
    loss.push_back(l);
    bits.push_back(l / std::numbers::ln2);
    perplexity.push_back(std::exp(l));
  };
  Index all = 0;
  for (const DomainLoss& d : losses) {
    row(d.name, d.tokens ? d.loss() : NAN, d.tokens);
    all += d.tokens;
  }
  if (losses.size() > 1)
    row("mean of domains", mean_loss(losses), all);
  Table t{
      .id = "loss",
      .title = "Loss by domain",
      .reading = "Mean cross-entropy of the next token. A uniform prediction has ln(vocabulary)."};
  t.columns = {{.name = "domain", .cells = name},
               {.name = "tokens", .meaning = "tokens predicted", .cells = tokens},
               {.name = ahead ? "look-ahead loss" : "loss",
                .unit = "nats",
                .meaning = "mean negative log-probability of the next token",
                .cells = loss,
                .digits = 4},
               {.name = "bits",
                .unit = "bits/token",
                .meaning = "loss / ln 2; for the tokenizer `bytes`, bits per byte",
                .cells = bits,
                .digits = 4},
               {.name = "perplexity", .meaning = "exp(loss)", .cells = perplexity}};
  return t;
}

// What was measured of one model.
struct Measured {
  std::vector<DomainLoss> losses;
  std::vector<Table> tables;
  KSums routing;
  WorthOfExperts worth;  // with --without-expert each
  std::string weights;   // their hash, with --without-expert each
};

// The table of losses, and those with experts missing.
Measured measured(const Options& o, Decoder<float>& model, const Corpus& corpus,
                  const EvalBatches& batches) {
  check_without(o.without, model);
  Measurement measurement(model, corpus, batches, 1 + passes_without(o.without, model));
  catch_stop_signals();
  Measured out;
  ExpertUsage usage(model.config().moe.experts, o.without.pair());
  const auto see = [&](int layer, const Batch& b, const MoeTape<float>& tape) {
    if (o.top_k > 0)
      out.routing.add(layer, b, tape.routing);
    if (o.without.each())
      usage.add(layer, b, tape);
  };
  const bool looks = o.top_k > 0 || o.without.each();
  out.losses = measurement.losses(looks ? Measurement::Routed(see) : Measurement::Routed());
  out.tables = {table_of(out.losses, looks_ahead(model.config()))};
  if (has_answers(out.losses))
    out.tables.push_back(exact_answers(out.losses));
  if (o.without.lists.empty() || stop_signal())
    return out;
  Without without = measure_without(o.without, model, measurement, out.losses, usage);
  std::ranges::move(without.tables, std::back_inserter(out.tables));
  out.worth = std::move(without.worth);
  if (o.without.each())
    out.weights = weights_xxh3(model);
  return out;
}

// The same text through the model as it was trained; returns the mean loss and adds the tables that
// compare.
double compare_with_trained(const Options& o, Backend<float>& device, const Corpus& corpus,
                            const EvalBatches& batches, int trained, Measured& here) {
  const LoadedModel loaded =
      load_model(o.model, device, {.holding = holding(o.experts), .router = o.router});
  KSums routing;
  const auto losses = Measurement(*loaded.model, corpus, batches, 1)
                          .losses([&](int layer, const Batch& b, const MoeTape<float>& tape) {
                            routing.add(layer, b, tape.routing);
                          });
  if (stop_signal())
    return 0;
  here.tables.push_back(k_losses(loss_changes(losses, here.losses), trained, o.top_k));
  here.tables.push_back(k_routing(*loaded.model, routing, here.routing, trained, o.top_k));
  return mean_loss(losses);
}

std::vector<std::pair<std::string, std::string>> facts_of(const std::string& checkpoint,
                                                          const Corpus& corpus,
                                                          const ModelConfig& config,
                                                          const Backend<float>& device) {
  return {{"checkpoint", checkpoint},    {"data", join(corpus.specs(), " ")},
          {"router", config.moe.router}, {"device", device.name()},
          {"moe", version_short()},      {"command", command_line()}};
}

// Of several ranks rank 0 gives it.
void give(const Report& report, const Options& o) {
  if (open_ranks({}).first())
    write_report(report, o.out);
}

// Where losses are kept while they are measured, and what --force begins anew.
void keep_beside(Options& o) {
  if (!o.without.each() || o.out.to_screen())
    return;
  o.without.keep = o.out.file + ".part";
  std::error_code failed;
  if (o.out.force)
    std::filesystem::remove(o.without.keep, failed);
}

void check(const Options& o) {
  check_output(o.out);
  if (o.without.pairs_given && !o.without.pair()) {
    throw Error(Exit::usage, "--pairs says how many pairs are measured, and none is asked for")
        .hint("--without-expert pair");
  }
}

// The report is given, and what was kept on the way to it is of no use any more.
void give_last(Report&& report, Measured&& here, const Options& o) {
  if (!here.weights.empty())
    report.facts.emplace_back(weights_fact, here.weights);
  report.tables = std::move(here.tables);
  add_worth(report, here.worth);
  give(report, o);
  std::error_code failed;
  if (!o.without.keep.empty())
    std::filesystem::remove(o.without.keep, failed);
}

// The data as the model reads them.
Corpus corpus_for(const Options& o, const LoadedModel& loaded, const Tokenizer& tokenizer) {
  const ModelConfig& config = loaded.model->config();
  const auto data = o.special.empty() ? o.data : with_special(o.data, o.special);
  const auto ids = for_vocabulary(data, config.vocabulary);
  Corpus out(with_encoder(ids, loaded.checkpoint.path, config.vocabulary), tokenizer, o.seed);
  out.begin_with(config.start_token);
  out.use_places(config.signal, config.vocabulary);
  return out;
}

int eval(Options& o) {
  open_ranks(o.ranks);
  check(o);
  keep_beside(o);
  const auto device = open_device(o.device);
  auto loaded = std::make_unique<const LoadedModel>(load_model(
      o.model, *device, {.holding = holding(o.experts), .router = o.router, .k = o.top_k}));
  report_loading(*loaded, o.model);
  refuse_ranks_to_replay(*loaded->model);
  const ModelConfig config = loaded->model->config();
  const auto tokenizer = tokenizer_for(*loaded, o.data);
  const Corpus corpus = corpus_for(o, *loaded, *tokenizer);
  require_same_reading(open_ranks({}), *loaded, corpus);
  const EvalBatches batches = batches_of(o.batches, config, o.seed);
  Measured here = measured(o, *loaded->model, corpus, batches);
  const std::string checkpoint = loaded->checkpoint.path.string();
  const int trained = loaded->trained_k;
  loaded.reset();  // one model at a time
  const char* kind = looks_ahead(config) ? "look-ahead loss" : "loss";
  std::string title = fmt::format("{}: {} {:.4f}{}", o.model, kind, mean_loss(here.losses),
                                  exact_text(here.losses));
  if (trained > 0 && !stop_signal()) {
    const double before = compare_with_trained(o, *device, corpus, batches, trained, here);
    title += fmt::format(" with k={}, {:.4f} with the trained k={}", o.top_k, before, trained);
  }
  if (const int signal = stop_signal())
    return 128 + signal;
  Report report{.title = title};
  report.facts = facts_of(checkpoint, corpus, config, *device);
  give_last(std::move(report), std::move(here), o);
  return 0;
}

// What reads one model in many ways, or all of them as they are.
void check_several(const Options& o) {
  if (o.top_k > 0 || o.without.pairs_given || !o.without.lists.empty() || !o.router.empty()) {
    throw Error(Exit::usage,
                "--top-k, --router and --without-expert change one model; several are "
                "compared as they are")
        .hint("moe eval of each on its own");
  }
}

int eval_several(const Options& o) {
  open_ranks(o.ranks);
  check_output(o.out);
  check_several(o);
  const auto device = open_device(o.device);
  std::vector<NamedLosses> all;
  Report facts;
  catch_stop_signals();
  for (const std::string& path : o.models) {
    const LoadedModel loaded =
        load_model(path, *device, {.holding = holding(o.experts), .router = o.router});
    report_loading(loaded, path);
    const ModelConfig& config = loaded.model->config();
    const auto tokenizer = tokenizer_for(loaded, o.data);
    const Corpus corpus = corpus_for(o, loaded, *tokenizer);
    require_same_reading(open_ranks({}), loaded, corpus);
    const EvalBatches batches = batches_of(o.batches, config, o.seed);
    all.push_back(
        {path, loaded.tokenizer, Measurement(*loaded.model, corpus, batches, 1).losses()});
    if (const int signal = stop_signal())
      return 128 + signal;
    facts.facts.emplace_back(path, loaded.checkpoint.path.string());
    if (all.size() == o.models.size())
      facts.facts.emplace_back("data", join(corpus.specs(), " "));
  }
  Report report = compared_losses(all);
  report.facts = std::move(facts.facts);
  report.facts.emplace_back("moe", version_short());
  report.facts.emplace_back("command", command_line());
  give(report, o);
  return 0;
}

}  // namespace

Run eval_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("model", o->models,
                 "a run, a checkpoint, a Hugging Face folder, or a GGUF file; several are compared "
                 "on the same text")
      .required();
  add_data(cli, o->data, true);
  add_special_tokens(cli, o->special);
  add_router(cli, o->router);
  add_top_k(cli, o->top_k, "--top-k,--experts-per-token");
  cli.add_option(
         "--without-expert", o->without.lists,
         "knock-out: the loss once more without LAYER:EXPERT; several with commas are "
         "missing together, given again they are tables of their own; each: every expert in "
         "turn, as a map; pair: those, and pairs of them. With -o FILE what was measured is kept "
         "in FILE.part, and the same command goes on after a stop")
      .repeatable();
  Option pairs = cli.add_option(
      "--pairs", o->without.pairs,
      "pairs that --without-expert pair measures: as many in each layer, those first "
      "that most tokens choose together; 0 = all");
  pairs.show_default().check(whole(0));
  cli.add_flag("--renormalise", o->without.renormalise,
               "where an expert is missing, scale a token's other weights so that their sum stays; "
               "else they stay as they are");
  add_batches(cli, o->batches);
  cli.add_option("--seed", o->seed, "for routers that draw").show_default().check(whole(0));
  add_device(cli, o->device);
  add_patience(cli, o->ranks);
  add_experts(cli, o->experts);
  add_output(cli, o->out, "where the table goes");
  add_config(cli);
  return [o, pairs] {
    o->without.pairs_given = pairs.given();
    o->model = o->models.front();
    return o->models.size() > 1 ? eval_several(*o) : eval(*o);
  };
}

}  // namespace moe
