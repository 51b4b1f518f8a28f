// moe eval: loss and perplexity of a checkpoint, per domain.
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/evaluation.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/version.h"
#include "lib/model/run_folder.h"

namespace moe {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> data;
  Index tokens = 0;
  int batch = 16, length = 0;
  std::uint64_t seed = 1;
  DeviceOptions device;
  OutputOptions out;
};

Table table_of(const std::vector<DomainLoss>& losses) {
  std::vector<std::string> name;
  std::vector<std::int64_t> tokens;
  std::vector<double> loss, bits, perplexity;
  const auto row = [&](const std::string& n, double l, Index t) {
    name.push_back(n), tokens.push_back(t), loss.push_back(l), bits.push_back(l / std::numbers::ln2), perplexity.push_back(std::exp(l));
  };
  Index all = 0;
  for (const DomainLoss& d : losses) row(d.name, d.tokens ? d.loss() : NAN, d.tokens), all += d.tokens;
  if (losses.size() > 1) row("mean of domains", mean_loss(losses), all);
  Table t{.id = "loss", .title = "Loss by domain", .reading = "Mean cross-entropy of the next token. A model that knows nothing has ln(vocabulary)."};
  t.columns = {{.name = "domain", .cells = name}, {.name = "tokens", .meaning = "tokens predicted", .cells = tokens},
               {.name = "loss", .unit = "nats", .meaning = "mean negative log-probability of the next token", .cells = loss, .digits = 4},
               {.name = "bits", .unit = "bits/token", .meaning = "loss / ln 2; for the tokenizer `bytes`, bits per byte", .cells = bits, .digits = 4},
               {.name = "perplexity", .meaning = "exp(loss)", .cells = perplexity}};
  return t;
}

int eval(const Options& o) {
  refuse_existing(o.out.file.empty() ? "-" : o.out.file, o.out.force);
  const auto device = open_device(o.device);
  const LoadedModel loaded = load_model(o.model, *device);
  for (const std::string& n : loaded.checkpoint.notes) warning(n);
  const auto tokenizer = make_tokenizer(loaded.tokenizer);
  const Corpus corpus(o.data, *tokenizer, o.seed);
  const WalkOptions options{.tokens = o.tokens, .sequences = o.batch, .length = o.length > 0 ? o.length : loaded.model->config().context};
  Progress progress("tokens", double(walk_size(corpus, options)), "tok");
  catch_stop_signals();
  const auto losses = evaluate(*loaded.model, corpus, options, [&](Index seen) {
    progress.update(double(seen));
    return stop_signal() == 0;
  });
  if (stop_signal()) return 128 + stop_signal();
  Report report{.title = fmt::format("{}: loss {:.4f}", o.model, mean_loss(losses))};
  report.facts = {{"checkpoint", loaded.checkpoint.path.string()}, {"data", join(corpus.specs(), " ")}, {"device", device->name()}, {"moe", version_short()}, {"command", command_line()}};
  report.tables.push_back(table_of(losses));
  write_report(report, o.out);
  return 0;
}

}  // namespace

Run eval_command(CLI::App& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("model", o->model, "a run, a checkpoint, or a Hugging Face folder")->required();
  add_data(cli, o->data, true);
  cli.add_option("--tokens", o->tokens, "at most this many, shared by the domains; 0 = the whole valid split")->capture_default_str()->check(CLI::NonNegativeNumber);
  cli.add_option("--batch", o->batch, "sequences at once")->capture_default_str()->check(CLI::PositiveNumber);
  cli.add_option("--length", o->length, "tokens of a sequence; 0 = the model's context")->capture_default_str()->check(CLI::NonNegativeNumber);
  cli.add_option("--seed", o->seed, "for routers that draw")->capture_default_str();
  add_device(cli, o->device);
  add_output(cli, o->out, "where the table goes");
  add_config(cli);
  return [o] { return eval(*o); };
}

}  // namespace moe
