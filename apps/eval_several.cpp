#include "apps/eval_several.h"

#include <fmt/format.h>

#include <cmath>

#include "analysis/statistics/paired.h"
#include "apps/exact_answers.h"
#include "apps/loss_changes.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double deviations_of_95 = 1.96;
constexpr double told_below = 0.05;  // of p, corrected over the models

// Losses of other tokens cannot be paired.
void refuse_other_tokens(const NamedLosses& a, const NamedLosses& b) {
  if (a.tokenizer != b.tokenizer) {
    throw Error(Exit::usage, concat("'", a.name, "' and '", b.name, "' have different tokenizers (",
                                    a.tokenizer, ", ", b.tokenizer,
                                    "): losses of different tokens say nothing about "
                                    "each other"))
        .hint("moe eval of each on its own, and compare bits a byte");
  }
  for (std::size_t d = 0; d < a.losses.size(); ++d) {
    if (a.losses[d].sequence_tokens != b.losses[d].sequence_tokens) {
      throw Error(Exit::usage, concat("'", a.name, "' and '", b.name,
                                      "' read the text in sequences of other lengths"))
          .hint("--length with what both contexts hold");
    }
  }
}

Table losses_table(const std::vector<NamedLosses>& all) {
  const LossChanges rows = loss_changes(all[0].losses, all[0].losses);
  std::vector<std::int64_t> tokens;
  std::int64_t sum = 0;
  for (const DomainLoss& d : all[0].losses) {
    tokens.push_back(d.tokens);
    sum += d.tokens;
  }
  if (rows.name.size() > tokens.size())
    tokens.push_back(sum);
  Table t{.id = "losses",
          .title = "Loss by domain",
          .reading = "Mean cross-entropy of the next token in nats, all over the same text."};
  t.columns = {{.name = "domain", .cells = rows.name},
               {.name = "tokens", .meaning = "tokens predicted", .cells = tokens}};
  for (const NamedLosses& one : all) {
    t.columns.push_back({.name = one.name,
                         .unit = "nats",
                         .cells = loss_changes(one.losses, one.losses).before,
                         .digits = 4});
  }
  return t;
}

// A model beside the first: the difference of the mean, and how often chance alone gives as much.
struct Compared {
  std::string name;
  double change, low, high;
  double p;  // NaN: too few sequences to say
};

Compared compared(const std::string& name, const LossChanges& rows) {
  const std::size_t mean = rows.change.size() - 1;
  const double deviation = (rows.high[mean] - rows.low[mean]) / (2 * deviations_of_95);
  const double z = rows.change[mean] == 0 ? 0 : std::abs(rows.change[mean]) / deviation;
  return {name, rows.change[mean], rows.low[mean], rows.high[mean],
          std::isnan(rows.low[mean]) ? NAN : 2 * statistics::normal_below(-z)};
}

// Told as better or worse is a difference whose p, corrected by Holm over as many models, is small.
void tell(Report& r, const std::string& first, const Compared& c, double corrected) {
  if (std::isnan(corrected)) {
    r.findings.push_back({concat("Too little text to judge whether ", c.name, " or ", first,
                                 " predicts it better: at least ", least_sequences,
                                 " sequences a domain (--tokens)."),
                          {},
                          Priority::too_few});
    return;
  }
  const std::string range = fmt::format("{:+.4f} nats [{:.4f}, {:.4f}]", c.change, c.low, c.high);
  const bool clear = corrected < told_below;
  r.findings.push_back(
      {clear ? concat(c.name, c.change < 0 ? " predicts better than " : " predicts worse than ",
                      first, ": ", range,
                      ". That holds for this text and these two checkpoints; "
                      "other seeds of the same training differ as well: moe study.")
             : concat("Between ", c.name, " and ", first, " no difference can be told: ", range,
                      " is within the noise of this text."),
       {},
       clear ? Priority::told : Priority::chance});
}

void add_answers(Report& r, const std::vector<NamedLosses>& all) {
  if (!has_answers(all[0].losses))
    return;
  std::vector<std::pair<std::string, std::vector<DomainLoss>>> named;
  for (const NamedLosses& one : all)
    named.emplace_back(one.name, one.losses);
  r.tables.push_back(exact_answers_of(named));
}

}  // namespace

Report compared_losses(const std::vector<NamedLosses>& all) {
  for (const NamedLosses& one : all)
    refuse_other_tokens(all[0], one);
  Report r;
  for (const NamedLosses& one : all)
    r.title += concat(r.title.empty() ? "" : ", ", one.name);
  r.tables.push_back(losses_table(all));
  Table t{.id = "loss_differences",
          .title = concat("Differences from ", all[0].name),
          .reading =
              "Below 0: less loss than the first. Intervals (95 %) are by sequences, paired: one "
              "that holds 0 is no difference that this much text can show."};
  std::vector<Compared> others;
  std::vector<double> p;
  for (std::size_t i = 1; i < all.size(); ++i) {
    const LossChanges rows = loss_changes(all[0].losses, all[i].losses);
    if (t.columns.empty())
      t.columns.push_back({.name = "domain", .cells = rows.name});
    Column c = rows.column(concat("loss of ", all[i].name, " less that of ", all[0].name));
    c.name = all[i].name;
    t.columns.push_back(std::move(c));
    others.push_back(compared(all[i].name, rows));
    p.push_back(others.back().p);
  }
  const auto corrected = statistics::holm(p);
  for (std::size_t i = 0; i < others.size(); ++i)
    tell(r, all[0].name, others[i], corrected[i].p);
  r.tables.push_back(std::move(t));
  add_answers(r, all);
  return r;
}

}  // namespace moe
