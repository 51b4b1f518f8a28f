#include "apps/eval_without.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/model/config.h"
#include "lib/run/measured_losses.h"

namespace moe {
namespace {

constexpr const char* each_expert = "each";
constexpr const char* pairs_of_experts = "pair";

bool has(const WithoutOptions& o, const char* word) {
  return std::ranges::find(o.lists, word) != o.lists.end();
}

bool is_list(const std::string& words) {
  return words != each_expert && words != pairs_of_experts;
}

std::string text_of(const ExpertName& e) {
  return concat(e.layer, ":", e.expert);
}

void knock_out(Decoder<float>& model, const std::vector<ExpertName>& names, bool renormalise) {
  std::vector<std::vector<int>> missing(std::size_t(model.config().moe_layers()));
  for (const ExpertName& n : names)
    missing[std::size_t(moe_layer_of(model, n))].push_back(n.expert);
  for (std::size_t l = 0; l < missing.size(); ++l)
    model.moe_layers()[l]->knock_out(missing[l], renormalise);
}

// LAYER:EXPERT of all of them.
std::vector<ExpertName> every_expert(const Decoder<float>& model) {
  std::vector<ExpertName> out;
  for (int l = 0; l < model.config().moe_layers(); ++l) {
    for (int e = 0; e < model.config().moe.experts; ++e)
      out.push_back({model.layer_of(l), e});
  }
  return out;
}

std::size_t pairs_in(const Decoder<float>& model) {
  const auto e = std::size_t(model.config().moe.experts);
  return std::size_t(model.config().moe_layers()) * (e * (e - 1) / 2);
}

std::size_t pairs_measured(const WithoutOptions& o, const Decoder<float>& model) {
  const std::size_t all = pairs_in(model);
  return o.pairs > 0 ? std::min(all, std::size_t(o.pairs)) : all;
}

struct Pair {
  ExpertName one, other;
  double together = 0, load = 0;
};

// The pairs of each layer, those chosen together most often first; of equals those of the higher
// load, then those of lower ids.
std::vector<Pair> pairs_of_layer(const Decoder<float>& model, int l, const ExpertUsage& usage) {
  std::vector<Pair> out;
  const auto n = std::size_t(l);
  for (int a = 0; a < model.config().moe.experts; ++a) {
    for (int b = a + 1; b < model.config().moe.experts; ++b) {
      out.push_back({{model.layer_of(l), a},
                     {model.layer_of(l), b},
                     usage.together(n, a, b),
                     usage.load(n, a) + usage.load(n, b)});
    }
  }
  std::ranges::stable_sort(out, [](const Pair& a, const Pair& b) {
    return a.together != b.together ? a.together > b.together : a.load > b.load;
  });
  return out;
}

// As many of each layer.
std::vector<Pair> chosen_pairs(const WithoutOptions& o, const Decoder<float>& model,
                               const ExpertUsage& usage) {
  std::vector<std::vector<Pair>> layer;
  for (int l = 0; l < model.config().moe_layers(); ++l)
    layer.push_back(pairs_of_layer(model, l, usage));
  const std::size_t wanted = pairs_measured(o, model);
  std::vector<Pair> out;
  for (std::size_t rank = 0; out.size() < wanted; ++rank) {
    for (const auto& pairs : layer) {
      if (rank < pairs.size() && out.size() < wanted)
        out.push_back(pairs[rank]);
    }
  }
  return out;
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

// The change on every second sequence of each domain, mean of domains.
double change_in_half(const std::vector<DomainLoss>& before, const std::vector<DomainLoss>& after,
                      std::size_t half) {
  double sum = 0;
  double domains = 0;
  for (std::size_t d = 0; d < before.size(); ++d) {
    double nats = 0;
    double tokens = 0;
    for (std::size_t q = half; q < before[d].sequence_tokens.size(); q += 2) {
      nats += after[d].sequence_nats[q] - before[d].sequence_nats[q];
      tokens += double(before[d].sequence_tokens[q]);
    }
    if (tokens > 0) {
      sum += nats / tokens;
      domains += 1;
    }
  }
  return domains > 0 ? sum / domains : NAN;
}

class Missing {
 public:
  Missing(const WithoutOptions& o, Decoder<float>& model, Measurement& measurement,
          const std::vector<DomainLoss>& whole, const ExpertUsage& usage)
      : o_(o),
        model_(model),
        measurement_(measurement),
        whole_(whole),
        usage_(usage),
        kept_(o.each() ? o.keep : "", whole, o.renormalise ? "renormalised" : "as it is") {}
  ~Missing() {
    knock_out(model_, {}, false);
  }

  std::vector<DomainLoss> losses(const std::vector<ExpertName>& names) {
    knock_out(model_, names, o_.renormalise);
    return measurement_.losses();
  }
  // Those of names that the file knows are not measured again. Empty where a signal came.
  std::vector<DomainLoss> kept_losses(const std::vector<ExpertName>& names) {
    std::string text;
    for (const ExpertName& n : names)
      text += concat(text.empty() ? "" : ",", text_of(n));
    if (auto known = kept_.find(text)) {
      measurement_.known(1);
      return *known;
    }
    auto out = losses(names);
    if (stop_signal())
      return {};
    kept_.add(text, out);
    return out;
  }

  void each(WorthOfExperts& out) {
    for (const ExpertName& name : every_expert(model_)) {
      const auto after = kept_losses({name});
      if (stop_signal())
        return;
      const auto l = std::size_t(moe_layer_of(model_, name));
      out.each.push_back({name,
                          usage_.load(l, name.expert),
                          usage_.reap(l, name.expert),
                          loss_changes(whole_, after),
                          {change_in_half(whole_, after, 0), change_in_half(whole_, after, 1)}});
      alone_[text_of(name)] = after;
    }
  }
  void pairs(WorthOfExperts& out) {
    const auto chosen = chosen_pairs(o_, model_, usage_);
    out.pairs_left_out = pairs_in(model_) - chosen.size();
    for (const Pair& p : chosen) {
      const auto after = kept_losses({p.one, p.other});
      if (stop_signal())
        return;
      PairWorth worth{p.one, p.other, p.together, loss_changes(whole_, after)};
      add_beyond(worth, after);
      out.pairs.push_back(std::move(worth));
    }
  }
  std::size_t kept() const {
    return kept_.size();
  }

 private:
  // The losses that the two alone would give together, against those that they give.
  void add_beyond(PairWorth& p, const std::vector<DomainLoss>& after) const {
    std::vector<DomainLoss> expected = alone_.at(text_of(p.one));
    const std::vector<DomainLoss>& other = alone_.at(text_of(p.other));
    for (std::size_t d = 0; d < expected.size(); ++d) {
      expected[d].nats += other[d].nats - whole_[d].nats;
      for (std::size_t q = 0; q < expected[d].sequence_nats.size(); ++q)
        expected[d].sequence_nats[q] += other[d].sequence_nats[q] - whole_[d].sequence_nats[q];
    }
    const LossChanges beyond = loss_changes(expected, after);
    p.beyond = beyond.change.back();
    p.beyond_low = beyond.low.back();
    p.beyond_high = beyond.high.back();
  }

  const WithoutOptions& o_;
  Decoder<float>& model_;
  Measurement& measurement_;
  const std::vector<DomainLoss>& whole_;
  const ExpertUsage& usage_;
  MeasuredLosses kept_;
  std::map<std::string, std::vector<DomainLoss>> alone_;
};

}  // namespace

bool WithoutOptions::pair() const {
  return has(*this, pairs_of_experts);
}
bool WithoutOptions::each() const {
  return has(*this, each_expert) || pair();
}

void check_without(const WithoutOptions& o, Decoder<float>& model) {
  for (const std::string& list : o.lists) {
    if (is_list(list))
      knock_out(model, expert_names(list), o.renormalise);
  }
  if (o.each()) {
    const auto all = every_expert(model);
    if (all.empty()) {
      throw Error(Exit::usage, "the model has no experts to leave out")
          .hint("moe eval without --without-expert");
    }
    knock_out(model, {all.front()}, o.renormalise);
  }
  knock_out(model, {}, false);
}

int passes_without(const WithoutOptions& o, Decoder<float>& model) {
  std::size_t out = std::size_t(std::ranges::count_if(o.lists, is_list));
  out += o.each() ? every_expert(model).size() : 0;
  out += o.pair() ? pairs_measured(o, model) : 0;
  return int(out);
}

Without measure_without(const WithoutOptions& o, Decoder<float>& model, Measurement& measurement,
                        const std::vector<DomainLoss>& whole, const ExpertUsage& usage) {
  Without out;
  Missing missing(o, model, measurement, whole, usage);
  for (const std::string& list : o.lists) {
    if (!is_list(list))
      continue;
    const auto less = missing.losses(expert_names(list));
    if (stop_signal())
      return out;
    out.tables.push_back(table_without(whole, less, list, o.renormalise));
  }
  if (missing.kept() > 0)
    note(fmt::format("going on behind {} losses that {} holds", missing.kept(), o.keep));
  if (o.each())
    missing.each(out.worth);
  if (o.pair() && !stop_signal())
    missing.pairs(out.worth);
  if (stop_signal() && o.each() && !o.keep.empty()) {
    note(
        fmt::format("stopped with {} losses measured, which are safe in {}: the same command goes "
                    "on behind them",
                    missing.kept(), o.keep));
  }
  return out;
}

}  // namespace moe
