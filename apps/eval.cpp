// moe eval: loss and perplexity of a checkpoint, per domain.
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/experts.h"
#include "apps/output.h"
#include "apps/provenance.h"
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
  std::string model, router, special;
  std::vector<std::string> data, without;  // without: lists of LAYER:EXPERT
  bool renormalise = false;
  BatchOptions batches;
  std::uint64_t seed = 1;
  DeviceOptions device;
  ExpertOptions experts;
  OutputOptions out;
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

// Rows of the losses with and without some experts.
struct Changes {
  std::vector<std::string> name;
  std::vector<double> with, without, change, low, high;

  void add(const std::string& n, double a, double b, double error) {
    name.push_back(n);
    with.push_back(a);
    without.push_back(b);
    change.push_back(b - a);
    low.push_back(b - a - error);
    high.push_back(b - a + error);
  }
  std::string unclear() const {  // rows whose change may be none
    std::vector<std::string> out;
    for (std::size_t i = 0; i < name.size(); ++i) {
      if (!std::isnan(change[i]) && !(low[i] > 0 || high[i] < 0))
        out.push_back(name[i]);
    }
    return join(out);
  }
};

// Half of a 95 % interval of a change, by sequences; Student's t of few is wider.
double reach_of_change(const DomainLoss& all, const DomainLoss& less) {
  constexpr double few = 1.66;
  const double n = double(all.sequence_tokens.size());
  return 1.96 * (1 + few / n) * error_of_difference(all, less);
}

Changes changes(const std::vector<DomainLoss>& all, const std::vector<DomainLoss>& less) {
  Changes rows;
  double square = 0;
  double domains = 0;
  for (std::size_t d = 0; d < all.size(); ++d) {
    if (all[d].tokens == 0) {
      rows.add(all[d].name, NAN, NAN, NAN);
      continue;
    }
    const double reach = reach_of_change(all[d], less[d]);
    rows.add(all[d].name, all[d].loss(), less[d].loss(), reach);
    square += reach * reach;
    domains += 1;
  }
  if (all.size() > 1)
    rows.add("mean of domains", mean_loss(all), mean_loss(less), std::sqrt(square) / domains);
  return rows;
}

// Loss beside what it was with every expert.
Table table_without(const std::vector<DomainLoss>& all, const std::vector<DomainLoss>& less,
                    const std::string& names, bool renormalised) {
  const Changes rows = changes(all, less);
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
                .cells = rows.with,
                .digits = 4},
               {.name = "loss without",
                .unit = "nats",
                .meaning = "with the choices of these experts dropped",
                .cells = rows.without,
                .digits = 4},
               {.name = "change",
                .unit = "nats",
                .meaning = "loss without - loss; what the experts are worth here",
                .cells = rows.change,
                .digits = 4,
                .low = rows.low,
                .high = rows.high}};
  if (const std::string unclear = rows.unclear(); !unclear.empty()) {
    t.warnings.push_back(fmt::format(
        "too little text to judge the change of {}: more --tokens, and at least {} sequences a "
        "domain",
        unclear, least_sequences));
  }
  return t;
}

void knock_out(Decoder<float>& model, const std::vector<ExpertName>& names, bool renormalise) {
  std::vector<std::vector<int>> missing(std::size_t(model.config().moe_layers()));
  for (const ExpertName& n : names)
    missing[std::size_t(moe_layer_of(model, n))].push_back(n.expert);
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

  std::vector<DomainLoss> losses() {
    before_ += now_;
    return evaluate(model_, corpus_, batches_, [&](Index seen) {
      now_ = seen;
      progress_.update(double(before_ + now_));
      return stop_signal() == 0;
    });
  }

 private:
  Decoder<float>& model_;
  const Corpus& corpus_;
  EvalBatches batches_;
  Progress progress_;
  Index before_ = 0, now_ = 0;  // tokens of the times before, and of this one
};

// The table of losses, and one for each list of experts that are left out.
std::vector<Table> measured(const Options& o, Decoder<float>& model, const Corpus& corpus,
                            const EvalBatches& batches, std::vector<DomainLoss>& losses) {
  // refused before anything is computed
  for (const std::string& list : o.without)
    knock_out(model, expert_names(list), o.renormalise);
  knock_out(model, {}, false);
  Measurement measurement(model, corpus, batches, 1 + int(o.without.size()));
  catch_stop_signals();
  losses = measurement.losses();
  std::vector<Table> tables = {table_of(losses, looks_ahead(model.config()))};
  for (const std::string& list : o.without) {
    if (stop_signal())
      break;
    knock_out(model, expert_names(list), o.renormalise);
    tables.push_back(table_without(losses, measurement.losses(), list, o.renormalise));
  }
  return tables;
}

int eval(const Options& o) {
  check_output(o.out);
  const auto device = open_device(o.device);
  const LoadedModel loaded = load_model(o.model, *device, o.router, expert_limit(o.experts));
  report_loading(loaded, o.model);
  Decoder<float>& model = *loaded.model;
  const auto tokenizer = tokenizer_for(loaded, o.data);
  const auto data = o.special.empty() ? o.data : with_special(o.data, o.special);
  const Corpus corpus(for_vocabulary(data, model.config().vocabulary), *tokenizer, o.seed);
  const EvalBatches batches = batches_of(o.batches, model.config(), o.seed);
  std::vector<DomainLoss> losses;
  std::vector<Table> tables = measured(o, model, corpus, batches, losses);
  if (const int signal = stop_signal())
    return 128 + signal;
  const char* kind = looks_ahead(model.config()) ? "look-ahead loss" : "loss";
  Report report{.title = fmt::format("{}: {} {:.4f}", o.model, kind, mean_loss(losses))};
  report.facts = {{"checkpoint", loaded.checkpoint.path.string()},
                  {"data", join(corpus.specs(), " ")},
                  {"router", model.config().moe.router},
                  {"device", device->name()},
                  {"moe", version_short()},
                  {"command", command_line()}};
  report.tables = std::move(tables);
  write_report(report, o.out);
  return 0;
}

}  // namespace

Run eval_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("model", o->model, "a run, a checkpoint, a Hugging Face folder, or a GGUF file")
      .required();
  add_data(cli, o->data, true);
  add_special_tokens(cli, o->special);
  add_router(cli, o->router);
  cli.add_option("--without-expert", o->without,
                 "knock-out: the loss once more without LAYER:EXPERT; several with commas are "
                 "missing together, given again they are tables of their own")
      .repeatable();
  cli.add_flag("--renormalise", o->renormalise,
               "where an expert is missing, scale a token's other weights so that their sum stays; "
               "else they stay as they are");
  add_batches(cli, o->batches);
  cli.add_option("--seed", o->seed, "for routers that draw").show_default().check(whole(0));
  add_device(cli, o->device);
  add_experts(cli, o->experts);
  add_output(cli, o->out, "where the table goes");
  add_config(cli);
  return [o] {
    return eval(*o);
  };
}

}  // namespace moe
