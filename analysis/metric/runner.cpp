// The registry, and the one pass over a trace that all metrics share: window by window, layers side
// by side on threads.

#include <bit>
#include <set>

#include "analysis/metric/bootstrap.h"
#include "analysis/metric/choice_order.h"
#include "analysis/metric/count_pass.h"
#include "analysis/metric/impossible.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/pass.h"
#include "analysis/metric/pieces.h"
#include "lib/core/clones.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {

#define METRIC(name, about, examples) MakeMetric make_##name##_metric;
#include "analysis/metric/metrics.def"
#undef METRIC

const Registry<MakeMetric>& metrics() {
  static const Registry<MakeMetric> all("metric", {
#define METRIC(name, about, examples) {#name, about, examples, make_##name##_metric},
#include "analysis/metric/metrics.def"
#undef METRIC
                                                  });
  return all;
}

namespace {

// What a report shows unless it is asked for something else. Most traces are of text alone: nobody
// misses their modalities.
std::vector<std::string> metrics_of_every_report(const TraceSource& trace) {
  std::vector<std::string> all = {
#define METRIC(name, about, examples) #name,
#define METRIC_ASKED(name, about, examples)
#include "analysis/metric/metrics.def"
#undef METRIC
  };
  if (!trace.fields().modality)
    std::erase(all, "modality");
  return all;
}

using Metrics = std::vector<std::unique_ptr<Metric>>;

TraceFields either(const TraceFields& a, const TraceFields& b) {
  return {a.weights || b.weights, a.dropped || b.dropped,       a.kept || b.kept,
          a.entropy || b.entropy, a.margin || b.margin,         a.logsumexp || b.logsumexp,
          a.logits || b.logits,   a.out_norm || b.out_norm,     a.predicted || b.predicted,
          a.rank || b.rank,       a.prediction || b.prediction, a.modality || b.modality};
}

struct Made {
  Metrics metric;
  std::vector<std::string> name, left_out;  // left_out: they need tokens, of which there are none
  std::string resolved;                     // specs of those that are made
};

Made make(const TraceSource& trace, const std::vector<std::string>& specs, const AnalyzeOptions& o,
          KnownChance& known) {
  std::vector<std::string> wanted = specs;
  if (wanted.empty())
    wanted = metrics_of_every_report(trace);
  Made out;
  for (const std::string& text : wanted) {
    Spec spec(text);
    std::unique_ptr<Metric> one = metrics().at(spec.name()).make(spec, trace, o);
    spec.done();
    if (counts_only(trace) && !one->counts_suffice()) {
      out.left_out.push_back(spec.name());
      continue;
    }
    out.name.push_back(spec.name());
    out.metric.push_back(std::move(one));
    out.metric.back()->keep_chance_in(
        known.of_metric[concat(out.metric.size(), " ", spec.resolved())]);
    out.resolved += (out.resolved.empty() ? "" : " ") + spec.resolved();
  }
  return out;
}

[[noreturn]] void senseless(std::uint64_t row, const std::string& what) {
  throw Error(Exit::input, concat("row ", row, " of the trace ", what))
      .hint("`moe verify` on the trace lists everything that is wrong with it");
}

MOE_SIMD unsigned largest(const int* id, Index n) {  // as unsigned numbers: -1 is the largest
  unsigned most = 0;
  for (Index i = 0; i < n; ++i)
    most = most > unsigned(id[i]) ? most : unsigned(id[i]);
  return most;
}

LayerChoices choices(const TraceRows& rows, std::size_t l, int experts) {
  const Matrix<int>& from = rows.layer[l].expert;
  const std::size_t tokens = rows.tokens();
  if (from.rows() != Index(tokens)) {
    senseless(rows.first, concat("has ", from.rows(), " rows of expert ids for ", tokens,
                                 " tokens in MoE layer ", l));
  }
  LayerChoices out{.width = int(from.cols()), .data = from.data(), .id = {}, .count = {}};
  out.full = from.size() > 0 && largest(from.data(), from.size()) < unsigned(experts);
  if (out.full)
    return out;
  out.id.assign(std::size_t(from.size()), -1);
  out.count.assign(tokens, 0);
  out.data = out.id.data();  // moving keeps the buffer
  for (Index t = 0; t < Index(tokens); ++t) {
    for (Index j = 0; j < from.cols(); ++j) {
      const int e = from(t, j);
      if (e == -1)
        continue;
      if (e < -1 || e >= experts) {
        senseless(rows.first + std::uint64_t(t),
                  concat("names expert ", e, " in MoE layer ", l, ", which has ", experts));
      }
      out.id[t * from.cols() + out.count[t]++] = e;
    }
  }
  return out;
}

int domain_of(const TraceSource& trace, std::uint32_t sequence) {
  const auto& all = trace.sequences();
  const std::uint16_t domain = sequence < all.size() ? all[sequence].domain : no_domain;
  return domain == no_domain ? -1 : int(domain);
}

Window window_of(const TraceRows& rows, const TraceSource& trace, bool ranked,
                 ImpossibleRows& impossible) {
  Window w{rows, {}, {}, {}, {}};
  const auto& layers = trace.header().layers;
  if (rows.layer.size() != layers.size())
    senseless(rows.first, concat("has ", rows.layer.size(), " layers, the header ", layers.size()));
  w.layer.resize(layers.size());
  parallel_for(Index(layers.size()), 1, [&](Index first, Index last) {
    for (std::size_t l(first); l < std::size_t(last); ++l) {
      w.layer[l] = choices(rows, l, layers[l].experts);
      w.layer[l].ranked = ranked;
    }
  });
  keep_possible(w, trace.header(), impossible);
  for (std::size_t t = 0; t < rows.tokens(); ++t)
    w.domain.push_back(domain_of(trace, rows.sequence[t]));
  return w;
}

// Collects the first tokens of every domain, for the coloured text.
class Sampler {
 public:
  Sampler(const TraceSource& trace, int most)
      : trace_(trace), pieces_(trace.header()), most_(std::size_t(most)) {}

  void observe(const Window& w) {
    for (const Index t : w.valid) {
      const auto [at, fresh] = found_.try_emplace(w.domain[t]);
      TokenSample& s = at->second;
      if (fresh)
        s.expert.resize(w.layer.size());
      if (s.piece.size() >= room(s) || full_.contains(w.domain[t]))
        continue;
      const bool signal = is_signal(w.rows, t);
      if (signal && !goes_on(s, w, t)) {
        full_.insert(w.domain[t]);
        continue;
      }
      s.piece.push_back(signal ? place : pieces_.bytes(w.rows.token_id[t]));
      for (std::size_t l = 0; l < w.layer.size(); ++l)
        s.expert[l].push_back(w.layer[l].first(t));
    }
  }
  std::vector<TokenSample> samples() {
    std::vector<TokenSample> out;
    const auto& names = trace_.header().domains;
    for (auto& [domain, sample] : found_) {
      if (domain < 0 && found_.size() > 1)
        continue;  // unlabelled text beside labelled
      sample.domain = domain < 0                           ? "text"
                      : std::size_t(domain) < names.size() ? names[domain]
                                                           : concat("domain ", domain);
      if (!sample.pictures.empty() && sample.pictures.back().end() > sample.piece.size())
        sample.pictures.pop_back();  // the trace ends in it
      if (!sample.piece.empty())
        out.push_back(std::move(sample));
    }
    return out;
  }

 private:
  static constexpr const char* place = "▫";  // of a row that is no text

  bool is_signal(const TraceRows& rows, Index t) const {
    const auto& names = trace_.header().modalities;
    return std::size_t(t) < rows.modality.size() && rows.modality[std::size_t(t)] < names.size() &&
           names[rows.modality[std::size_t(t)]] != text_modality;
  }
  // The first picture may be as large as it is, within reason.
  std::size_t room(const TokenSample& s) const {
    const bool alone = s.pictures.size() == 1 && s.pictures[0].first == 0;
    return alone ? std::max(most_, s.pictures[0].end() + most_ / 4) : most_;
  }
  // Row t, which is no text: begins a picture where it is the first of one, and says whether that
  // one has room in the sample.
  bool goes_on(TokenSample& s, const Window& w, Index t) {
    const std::uint32_t q = w.rows.sequence[std::size_t(t)];
    if (q >= trace_.sequences().size())
      return true;
    const SignalGrid grid = trace_.sequences()[q].grid;
    auto& [sequence, rows] = signals_[w.domain[t]];
    if (sequence != q)
      rows = 0;
    sequence = q;
    if (grid.places() == 0 || rows++ % grid.places() != 0)
      return true;
    const std::size_t most = s.piece.empty() ? most_first_picture : room(s);
    if (s.piece.size() + grid.places() > most)
      return false;
    const std::string& name = trace_.header().modalities[w.rows.modality[std::size_t(t)]];
    s.pictures.push_back({s.piece.size(), grid.rows, grid.columns, name});
    return true;
  }

  static constexpr std::size_t most_first_picture = 4096;
  const TraceSource& trace_;
  Pieces pieces_;
  std::size_t most_;
  std::map<int, TokenSample> found_;
  std::set<int> full_;  // domains whose next picture has no room
  struct Signals {
    std::uint32_t sequence = 0xFFFFFFFFu, rows = 0;
  };
  std::map<int, Signals> signals_;  // of the sequence that is read, of each domain
};

void check_layers(const TraceSource& trace) {
  for (const TraceLayer& l : trace.header().layers) {
    if (l.experts < 1) {
      throw Error(Exit::input,
                  concat("MoE layer ", l.index, " of the trace has ", l.experts, " experts"))
          .hint("was the header written?");
    }
  }
}

// The window, or less where its choices would take more than a fifth of a metric's memory: a power
// of two, so that chunks are read once.
std::uint64_t rows_at_a_time(const TraceSource& trace, const AnalyzeOptions& o) {
  std::int64_t row = 0;  // bytes: ids as stored and as numbers
  for (const TraceLayer& l : trace.header().layers)
    row += 8 * std::int64_t{l.top_k};
  const auto fit = std::uint64_t(o.memory / 5 / std::max<std::int64_t>(1, row));
  return std::max<std::uint64_t>(
      1, fit < o.window ? std::max<std::uint64_t>(256, std::bit_floor(fit)) : o.window);
}

// Returns the rows that were left out because no router can have made them. Throws Error(input)
// where nothing else is in the trace.
ImpossibleRows read_once(const TraceSource& trace, const std::vector<Metric*>& all,
                         Sampler* sampler, const AnalyzeOptions& o) {
  ImpossibleRows impossible;
  std::uint64_t possible = 0;
  TraceFields fields = no_fields;
  for (const Metric* m : all)
    fields = either(fields, m->needs());
  fields.modality = fields.modality || sampler;
  const Index layers = Index(trace.header().layers.size());
  const std::uint64_t step = rows_at_a_time(trace, o);
  const bool ranked = choice_order(trace) != ChoiceOrder::by_id;
  for (std::uint64_t first = 0; first < trace.tokens(); first += step) {
    const TraceRows rows = trace.read(first, std::min(step, trace.tokens() - first), fields);
    const Window w = window_of(rows, trace, ranked, impossible);
    possible += w.valid.size();
    // every metric: its whole-window part, then its layers
    const Index parts = Index(all.size()) * (layers + 1);
    parallel_for(parts, 1, [&](Index from, Index to) {
      for (Index p = from; p < to; ++p) {
        Metric& m = *all[p / (layers + 1)];
        const Index l = p % (layers + 1) - 1;
        l >= 0 ? m.observe_layer(w, l) : m.observe(w);
      }
    });
    if (sampler)
      sampler->observe(w);
    if (o.progress)
      o.progress(first + rows.tokens());
  }
  if (impossible.left_out > 0 && possible == 0) {
    throw Error(Exit::input, concat("nothing in the trace can be routing: ",
                                    impossible.why_left_out(trace.tokens())))
        .hint("moe verify on the trace lists them; record it again with the routes of every token");
  }
  for (Metric* m : all)
    m->finish();
  return impossible;
}

// its place in the story; one that is not of it: last
auto section_rank(const std::string& name) {
  return std::find(std::begin(section::order), std::end(section::order), name) -
         std::begin(section::order);
}

std::string shape_of(const TraceLayer& l) {
  return concat("E=", l.experts, l.top_k ? concat(" k=", l.top_k) : " k unknown",
                l.trained_top_k ? concat(" (trained with k=", l.trained_top_k, ")") : "",
                l.shared ? concat(" shared=", l.shared) : "", l.attention ? " of attention" : "",
                l.by_table ? " by a table of token ids" : "");
}

void facts(Report& r, const TraceSource& trace, const std::string& specs, const CountPass* counts) {
  const TraceHeader& h = trace.header();
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty())
      r.facts.emplace_back(key, value);
  };
  add("model", h.model_id);
  add("engine", concat(h.engine, h.engine_version.empty() ? "" : " ", h.engine_version));
  add(counts ? "counts" : "tokens", counts ? counts->size() : concat(trace.tokens()));
  if (!counts)
    add("sequences", concat(trace.sequences().size()));
  std::string layers;
  for (const TraceLayer& l : h.layers) {
    const std::string shape = shape_of(l);
    if (layers.find(shape) == std::string::npos)
      layers += (layers.empty() ? "" : ", ") + shape;
  }
  add("MoE layers", concat(h.layers.size(), " (", layers, ")"));
  add("domains", join(h.domains));
  if (h.checkpoint_step >= 0)
    add("checkpoint step", concat(h.checkpoint_step));
  add("tokenizer", h.tokenizer_id);
  add("seed", concat(h.seed));
  add("recorded by", h.command);
  add("recorded", h.created_utc);
  add("metrics", specs);
}

// "1,234,567" of 1234567
std::string grouped(std::uint64_t n) {
  std::string digits = concat(n);
  for (std::ptrdiff_t at = std::ptrdiff_t(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(std::size_t(at), ",");
  return digits;
}

// "runs/a, 16,384 tokens, 4 MoE layers x 8 experts, k=2"
std::string subject(const TraceSource& trace, const CountPass* counts) {
  const TraceHeader& h = trace.header();
  std::set<int> experts, choices;
  for (const TraceLayer& l : h.layers) {
    experts.insert(l.experts);
    choices.insert(l.top_k);
  }
  const auto span = [](const std::set<int>& all) {
    return all.empty()       ? std::string("no")
           : all.size() == 1 ? concat(*all.begin())
                             : concat(*all.begin(), " to ", *all.rbegin());
  };
  const bool unknown = choices.contains(0);
  return concat(
      h.model_id, h.model_id.empty() ? "" : ", ",
      counts ? concat("counts of ", counts->size()) : concat(grouped(trace.tokens()), " tokens"),
      ", ", h.layers.size(), h.layers.size() == 1 ? " MoE layer x " : " MoE layers x ",
      span(experts), " experts, k", unknown ? " unknown" : concat("=", span(choices)));
}

}  // namespace

void read_again(const TraceSource& trace, Metric& metric, const AnalyzeOptions& options) {
  AnalyzeOptions quiet = options;
  quiet.progress = nullptr;
  read_once(trace, {&metric}, nullptr, quiet);
}

namespace {

// The metrics of one run. The bootstrap comes last: its intervals go into the others' tables.
struct Pass {
  std::shared_ptr<KnownChance> known;
  Made asked;
  std::unique_ptr<Bootstrap> bootstrap;  // where intervals or replicas are wanted
  std::unique_ptr<CountPass> counts;     // of a trace that holds no tokens but counts

  Pass(const TraceSource& trace, const std::vector<std::string>& specs, const AnalyzeOptions& o)
      : known(o.known_chance ? o.known_chance : std::make_shared<KnownChance>()),
        asked(make(trace, specs, o, *known)) {
    check_layers(trace);
    if (counts_only(trace))
      counts = std::make_unique<CountPass>(trace);
    else if (o.bootstrap > 0)
      bootstrap = std::make_unique<Bootstrap>(trace, o);
  }
  ImpossibleRows read(const TraceSource& trace, Sampler* sampler, const AnalyzeOptions& o) const {
    if (!counts)
      return read_once(trace, all(), sampler, o);
    counts->run(all(), o);
    return {};
  }
  std::vector<Metric*> all() const {
    std::vector<Metric*> out;
    for (const auto& m : asked.metric)
      out.push_back(m.get());
    if (bootstrap)
      out.push_back(bootstrap.get());
    return out;
  }
  void give(const AnalyzeOptions& o) const {  // what the caller wants beside the report
    if (bootstrap && o.replicas)
      *o.replicas = bootstrap->results();
    if (!o.values)
      return;
    for (const auto& m : asked.metric) {
      for (MetricValue& v : m->values())
        o.values->push_back(std::move(v));
    }
  }
  // Side by side, each into a report of its own, joined in their order; the bootstrap sees them
  // all.
  void report(Report& r) const;
};

void Pass::report(Report& r) const {
  std::vector<Report> each(asked.metric.size());
  parallel_for(Index(each.size()), 1, [&](Index from, Index to) {
    for (Index i = from; i < to; ++i)
      asked.metric[i]->report(each[i]);
  });
  const auto append = [](auto& to, auto& from) {
    std::move(from.begin(), from.end(), std::back_inserter(to));
  };
  for (Report& one : each) {
    append(r.facts, one.facts);
    append(r.findings, one.findings);
    append(r.warnings, one.warnings);
    append(r.tables, one.tables);
  }
  if (bootstrap)
    bootstrap->report(r);
  if (counts)
    forget_unknown_chance(r);
}

// What stands at the head of a report.
std::vector<std::string> remarks(const TraceSource& trace, const Pass& run,
                                 const ImpossibleRows& impossible) {
  std::vector<std::string> out = run.counts
                                     ? run.counts->remarks(run.asked.name, run.asked.left_out)
                                     : impossible.sentences(trace.tokens());
  for (const std::string& w : trace.warnings())
    out.push_back(w);
  if (trace.tokens() == 0 && !run.counts)
    out.emplace_back("the trace holds no tokens");
  if (run.counts)
    return out;
  if (const std::string remark = remark_on(choice_order(trace)); !remark.empty())
    out.push_back(remark);
  return out;
}

}  // namespace

Report analyze(const TraceSource& trace, const std::vector<std::string>& specs,
               const AnalyzeOptions& o) {
  const Pass run(trace, specs, o);
  Sampler sampler(trace, std::max(0, o.sample_tokens));
  const ImpossibleRows impossible = run.read(trace, o.sample_tokens > 0 ? &sampler : nullptr, o);
  Report r;
  r.title = concat("Who went where", trace.header().model_id.empty() ? "" : ": ",
                   trace.header().model_id);
  r.subject = subject(trace, run.counts.get());
  facts(r, trace, run.asked.resolved, run.counts.get());
  r.warnings = remarks(trace, run, impossible);
  run.report(r);
  std::stable_sort(r.tables.begin(), r.tables.end(), [](const Table& a, const Table& b) {
    return section_rank(a.section) < section_rank(b.section);
  });
  for (const TraceLayer& l : trace.header().layers)
    r.layers.push_back(l.index);
  r.samples = sampler.samples();
  run.give(o);
  return r;
}

std::vector<MetricValue> measure(const TraceSource& trace, const std::vector<std::string>& specs,
                                 const AnalyzeOptions& options) {
  std::vector<MetricValue> out;
  AnalyzeOptions o = options;
  o.values = &out;
  const Pass run(trace, specs, o);
  run.read(trace, nullptr, o);
  run.give(o);
  return out;
}

}  // namespace moe
