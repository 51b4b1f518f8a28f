// moe eval: loss and perplexity of a checkpoint, per domain.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/eval_several.h"
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
#include "lib/edit/edit.h"
#include "lib/run/evaluation.h"
#include "lib/run/router_warnings.h"
#include "lib/run/run_folder.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> models;
  std::string model;  // of them the one at hand
  std::string router, special;
  int top_k = 0;                           // 0 = as trained
  std::vector<std::string> data, without;  // without: lists of LAYER:EXPERT
  bool renormalise = false;
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

// Loss beside what it was with every expert.
Table table_without(const std::vector<DomainLoss>& all, const std::vector<DomainLoss>& less,
                    const std::string& names, bool renormalised) {
  const LossChanges rows = loss_changes(all, less);
  Table t{.id = "knock_out_" + names, .title = fmt::format("Loss without {}", names)};
  t.reading = fmt::format(
      "Tokens still choose as before; choices of {} are dropped and the other weights of the token "
      "{}. Intervals (95 %) are by sequences, on the same text: one that holds 0 is no change that "
      "this much text can show.",
      names, renormalised ? "scaled so that their sum stays" : "stay as they are");
  t.columns = {{.name = "domain", .cells = rows.name},
               {.name = "loss",
                .unit = "nats",
                .meaning = "with every expert",
                .cells = rows.before,
                .digits = 4},
               {.name = "loss without",
                .unit = "nats",
                .meaning = "with the choices of these experts dropped",
                .cells = rows.after,
                .digits = 4},
               rows.column("loss without - loss; what the experts are worth here")};
  if (const std::string unclear = rows.warning(); !unclear.empty())
    t.warnings.push_back(unclear);
  return t;
}

void knock_out(Decoder<float>& model, const std::vector<ExpertName>& names, bool renormalise) {
  std::vector<std::vector<int>> missing(std::size_t(model.config().moe_layers()));
  for (const ExpertName& n : names)
    missing[moe_layer_of(model, n)].push_back(n.expert);
  for (std::size_t l = 0; l < missing.size(); ++l)
    model.moe_layers()[l]->knock_out(missing[l], renormalise);
}

// Losses of the same batches, once or several times, behind one progress line.
class Measurement {
 public:
  Measurement(Decoder<float>& model, const Corpus& corpus, const EvalBatches& batches, int times)
      : model_(model),
        corpus_(corpus),
        batches_(batches),
        progress_("tokens", double(token_count(corpus, batches)) * times, "tok") {}

  std::vector<DomainLoss> losses(KSums* sums = nullptr) {
    before_ += now_;
    const auto visited = [&](Index seen) {
      now_ = seen;
      progress_.update(double(before_ + now_));
      return stop_signal() == 0;
    };
    Comm& ranks = open_ranks({});
    if (!sums) {
      auto out = evaluate(model_, corpus_, batches_, ranks, visited);
      stop_together(ranks);
      return out;
    }
    refuse_ranks("moe eval with --top-k or --without-expert each");
    return evaluate(
        model_, corpus_, batches_, visited,
        [sums](int layer, const Batch& b, const Routing& r) { sums->add(layer, b, r); });
  }

 private:
  Decoder<float>& model_;
  const Corpus& corpus_;
  EvalBatches batches_;
  Progress progress_;
  Index before_ = 0, now_ = 0;  // tokens of the times before, and of this one
};

// What was measured of one model.
struct Measured {
  std::vector<DomainLoss> losses;
  std::vector<Table> tables;
  KSums routing;
  std::vector<ExpertWorth> worth;  // with --without-expert each
};

constexpr const char* each_expert = "each";

bool wants_each(const Options& o) {
  return std::ranges::find(o.without, each_expert) != o.without.end();
}

// LAYER:EXPERT of all of them.
std::vector<ExpertName> every_expert(Decoder<float>& model) {
  std::vector<ExpertName> out;
  for (int l = 0; l < model.config().moe_layers(); ++l) {
    for (int e = 0; e < model.config().moe.experts; ++e)
      out.push_back({model.layer_of(l), e});
  }
  return out;
}

// The loss without each expert in turn.
std::vector<ExpertWorth> worth_of_each(const Options& o, Decoder<float>& model,
                                       Measurement& measurement, const Measured& whole) {
  std::vector<ExpertWorth> out;
  for (const ExpertName& name : every_expert(model)) {
    if (stop_signal())
      break;
    knock_out(model, {name}, o.renormalise);
    const auto losses = measurement.losses();
    if (stop_signal())
      break;
    out.push_back({name, whole.routing.share(std::size_t(moe_layer_of(model, name)), name.expert),
                   loss_changes(whole.losses, losses)});
  }
  knock_out(model, {}, false);
  return out;
}

// The table of losses, and one for each list of experts that are left out.
Measured measured(const Options& o, Decoder<float>& model, const Corpus& corpus,
                  const EvalBatches& batches) {
  // refused before anything is computed
  for (const std::string& list : o.without) {
    if (list != each_expert)
      knock_out(model, expert_names(list), o.renormalise);
  }
  knock_out(model, {}, false);
  const bool each = wants_each(o);
  const std::size_t times = 1 + o.without.size() + (each ? every_expert(model).size() - 1 : 0);
  Measurement measurement(model, corpus, batches, int(times));
  catch_stop_signals();
  Measured out;
  out.losses = measurement.losses(o.top_k > 0 || each ? &out.routing : nullptr);
  out.tables = {table_of(out.losses, looks_ahead(model.config()))};
  for (const std::string& list : o.without) {
    if (stop_signal())
      break;
    if (list == each_expert) {
      out.worth = worth_of_each(o, model, measurement, out);
      continue;
    }
    knock_out(model, expert_names(list), o.renormalise);
    out.tables.push_back(table_without(out.losses, measurement.losses(), list, o.renormalise));
  }
  return out;
}

// The same text through the model as it was trained; returns the mean loss and adds the tables that
// compare.
double compare_with_trained(const Options& o, Backend<float>& device, const Corpus& corpus,
                            const EvalBatches& batches, int trained, Measured& here) {
  const LoadedModel loaded = load_model(o.model, device, o.router, expert_limit(o.experts));
  KSums routing;
  const auto losses = Measurement(*loaded.model, corpus, batches, 1).losses(&routing);
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

int eval(const Options& o) {
  open_ranks(o.ranks);
  check_output(o.out);
  const auto device = open_device(o.device);
  auto loaded = std::make_unique<const LoadedModel>(
      load_model(o.model, *device, o.router, expert_limit(o.experts), Head::needed, o.top_k));
  report_loading(*loaded, o.model);
  const ModelConfig config = loaded->model->config();
  const auto tokenizer = tokenizer_for(*loaded, o.data);
  const auto data = o.special.empty() ? o.data : with_special(o.data, o.special);
  Corpus corpus(for_vocabulary(data, config.vocabulary), *tokenizer, o.seed);
  corpus.begin_with(config.start_token);
  const EvalBatches batches = batches_of(o.batches, config, o.seed);
  Measured here = measured(o, *loaded->model, corpus, batches);
  const std::string checkpoint = loaded->checkpoint.path.string();
  const int trained = loaded->trained_k;
  loaded.reset();  // one model at a time
  const char* kind = looks_ahead(config) ? "look-ahead loss" : "loss";
  std::string title = fmt::format("{}: {} {:.4f}", o.model, kind, mean_loss(here.losses));
  if (trained > 0 && !stop_signal()) {
    const double before = compare_with_trained(o, *device, corpus, batches, trained, here);
    title += fmt::format(" with k={}, {:.4f} with the trained k={}", o.top_k, before, trained);
  }
  if (const int signal = stop_signal())
    return 128 + signal;
  Report report{.title = title};
  report.facts = facts_of(checkpoint, corpus, config, *device);
  report.tables = std::move(here.tables);
  add_worth(report, here.worth);
  give(report, o);
  return 0;
}

// What reads one model in many ways, or all of them as they are.
void check_several(const Options& o) {
  if (o.top_k > 0 || !o.without.empty() || !o.router.empty()) {
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
        load_model(path, *device, o.router, expert_limit(o.experts), Head::needed, 0);
    report_loading(loaded, path);
    const ModelConfig& config = loaded.model->config();
    const auto tokenizer = tokenizer_for(loaded, o.data);
    const auto data = o.special.empty() ? o.data : with_special(o.data, o.special);
    const Corpus corpus(for_vocabulary(data, config.vocabulary), *tokenizer, o.seed);
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
         "--without-expert", o->without,
         "knock-out: the loss once more without LAYER:EXPERT; several with commas are "
         "missing together, given again they are tables of their own; each: every expert in "
         "turn, as a map")
      .repeatable();
  cli.add_flag("--renormalise", o->renormalise,
               "where an expert is missing, scale a token's other weights so that their sum stays; "
               "else they stay as they are");
  add_batches(cli, o->batches);
  cli.add_option("--seed", o->seed, "for routers that draw").show_default().check(whole(0));
  add_device(cli, o->device);
  add_patience(cli, o->ranks);
  add_experts(cli, o->experts);
  add_output(cli, o->out, "where the table goes");
  add_config(cli);
  return [o] {
    o->model = o->models.front();
    return o->models.size() > 1 ? eval_several(*o) : eval(*o);
  };
}

}  // namespace moe
