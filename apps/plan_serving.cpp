// One kind of device, in tables and sentences.
#include "apps/plan_serving.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/plan_columns.h"
#include "apps/terminal.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/model/sizes.h"

namespace moe {
namespace {

using plan::Fit;
using plan::PassBound;
using plan::Serving;

constexpr double gib = 1024.0 * 1024 * 1024;
constexpr const char* of_device = "on a device";

Table memory_stack(const Serving& s) {
  const plan::MemoryParts m = memory_parts(s);
  const double embedding =
      s.weights.part(s.model, ModelPart::embedding) + s.weights.part(s.model, ModelPart::head);
  Table t{.id = "memory_stack",
          .title = "What lies in memory",
          .reading = fmt::format(
              "Weights: {}. Cache: keys and values of one sequence of {} tokens, {} bits a number; "
              "states of recurrent layers f32. Activations: of a pass of {} tokens.",
              s.weights.about, s.context, s.cache_bits, s.chunk),
          .chart = Chart::bars,
          .section = of_device};
  t.columns = {text_column("part", {"experts", "embedding and output", "other weights",
                                    "cache of a sequence", "activations"}),
               number_column("size", "GiB", "bytes of the whole model",
                             {m.experts / gib, embedding / gib, (m.others - embedding) / gib,
                              m.sequence / gib, m.activations / gib},
                             2)};
  return t;
}

Table fits_table(const Serving& s, const std::vector<Fit>& fits) {
  std::vector<std::int64_t> devices, sequences;
  std::vector<std::string> cut;
  std::vector<double> weights, room;
  for (const Fit& f : fits) {
    devices.push_back(f.spread.devices);
    cut.emplace_back(name_of(f.spread.cut));
    weights.push_back(f.weights / gib);
    room.push_back(f.room / gib);
    sequences.push_back(f.sequences);
  }
  Table t{
      .id = "cards",
      .title = fmt::format("How many devices, and how many sequences of {} tokens", s.context),
      .reading = fmt::format(
          "Of {} a device, {:.0f} % may be taken. tensor: every matrix and the heads of the "
          "cache are cut over all devices (a latent cache stands on each); expert: experts are "
          "spread, everything else stands on each device, which serves sequences of its own. Of "
          "the two the one that fits more.",
          bytes_text(s.device.memory), 100 * s.usable),
      .section = of_device};
  t.columns = {Column{.name = "devices", .cells = devices}, text_column("cut", cut),
               number_column("weights", "GiB", "on each device", weights, 2),
               number_column("left", "GiB", "on each device, for sequences", room, 2),
               Column{.name = "sequences", .meaning = "on all devices", .cells = sequences}};
  return t;
}

struct PassColumns {
  std::vector<double> distinct, bytes, memory, compute, rate;
  std::vector<std::string> limit;
  void add(const PassBound& b) {
    distinct.push_back(b.distinct);
    bytes.push_back(b.bytes / gib);
    memory.push_back(1e3 * b.memory_s);
    compute.push_back(b.compute_s > 0 ? 1e3 * b.compute_s : NAN);
    rate.push_back(b.tokens_per_s());
    limit.emplace_back(b.by_compute() ? "compute" : "memory");
  }
  void into(Table& t, const Serving& s) {
    if (s.model.moe()) {
      t.columns.push_back(number_column("experts", "", "of a layer that a pass touches, mean",
                                        std::move(distinct), 1));
    }
    t.columns.push_back(
        number_column("read", "GiB", "weights and cache that a pass reads", std::move(bytes), 2));
    t.columns.push_back(
        number_column("memory", "ms", "reading that at full bandwidth", std::move(memory), 3));
    if (s.device.flops16 > 0) {
      t.columns.push_back(number_column(
          "compute", "ms", "its FLOPs at the full rate of dense products", std::move(compute), 3));
    }
    t.columns.push_back(number_column(
        "at most", "tok/s", "tokens of a pass over the longer of both", std::move(rate), 1));
    t.columns.push_back(text_column("limit", std::move(limit)));
  }
};

std::string devices_text(const Serving& s, Count devices) {
  return fmt::format("{} x {}", devices, s.device.name);
}
std::string rate_text(double flops) {
  return flops >= 1e12 ? fmt::format("{:.1f} TFLOP/s", flops * 1e-12)
                       : fmt::format("{:.1f} GFLOP/s", flops * 1e-9);
}

Table decode_table(const Serving& s, const plan::Spread& spread, Count most) {
  std::vector<std::int64_t> batch;
  PassColumns c;
  for (Count b = 1; b <= most; b *= 2) {
    batch.push_back(b);
    c.add(decode_bound(s, spread, b));
  }
  if (batch.back() != most) {
    batch.push_back(most);
    c.add(decode_bound(s, spread, most));
  }
  Table t{
      .id = "decode",
      .title =
          fmt::format("Decoding on {}: what is possible at most", devices_text(s, spread.devices)),
      .reading = fmt::format(
          "A pass makes one token of each sequence, each with {} tokens before it. Routing: {}; "
          "tokens of a batch choose independently of each other. A bound: no kernel, exchange "
          "or host costs anything here.",
          s.context, s.law.name),
      .section = of_device};
  t.columns = {Column{.name = "batch", .meaning = "sequences", .cells = batch}};
  c.into(t, s);
  return t;
}

Table decode_chart(const Table& decode) {
  Table t{.id = "decode_rate",
          .title = "Tokens a second against the batch",
          .reading = "The same bound as a line.",
          .chart = Chart::lines,
          .section = of_device};
  for (const Column& c : decode.columns) {
    if (c.name == "batch" || c.name == "at most")
      t.columns.push_back(c);
  }
  return t;
}

Table prefill_table(const Serving& s, const plan::Spread& spread) {
  std::vector<std::int64_t> tokens;
  PassColumns c;
  for (Count n = 32; n <= std::max<Count>(32, s.context); n *= 4) {
    tokens.push_back(n);
    c.add(prefill_bound(s, spread, n));
  }
  Table t{.id = "prefill",
          .title = fmt::format("Reading a prompt on {}: what is possible at most",
                               devices_text(s, spread.devices)),
          .reading = "One prompt in one pass, causal attention, logits of its last token.",
          .section = of_device};
  t.columns = {Column{.name = "tokens", .meaning = "of the prompt", .cells = tokens}};
  c.into(t, s);
  return t;
}

// Bars of what each kind of product can reach, and the numbers behind them.
std::vector<Table> roofline_tables(const Serving& s, Count batch) {
  std::vector<std::string> part, limit;
  std::vector<double> intensity, reach, share;
  for (const plan::RooflinePoint& p : roofline(s, batch)) {
    part.emplace_back(p.part);
    intensity.push_back(p.intensity());
    reach.push_back(p.attainable * 1e-12);
    share.push_back(100 * p.attainable / p.ceiling);
    limit.emplace_back(p.attainable < p.ceiling ? "memory" : "compute");
  }
  const double ridge = s.device.flops(s.weights.bits) / s.device.bandwidth;
  Table chart{.id = "roofline",
              .title = fmt::format("Roofline of decoding at a batch of {}", batch),
              .reading = fmt::format(
                  "What each kind of product can reach at most: FLOPs over bytes read, times the "
                  "bandwidth, up to the full rate. Below {:.0f} FLOPs a byte memory decides.",
                  ridge),
              .chart = Chart::bars,
              .section = of_device};
  chart.columns = {text_column("products of", part),
                   number_column("attainable", "TFLOP/s", "at most", reach, 2)};
  Table data{.id = "intensity", .title = "Arithmetic intensity of decoding", .section = of_device};
  data.columns = {
      text_column("products of", part),
      number_column("intensity", "FLOP/B", "FLOPs over bytes of weights or cache", intensity, 2),
      number_column("share", "%", "of the device's full rate", share, 2),
      text_column("limit", limit)};
  return {std::move(chart), std::move(data)};
}

struct HitRow {
  std::string policy;
  double hits;
};

std::vector<HitRow> hit_rows(const ServingRequest& r, Count held, plan::CacheReplay& replay) {
  if (r.trace.empty()) {
    return {{"LRU", r.serving.law.hits_lru(held)},
            {"most used", r.serving.law.hits_most_used(held)}};
  }
  replay = plan::replay_cache(r.trace, held, r.trace_tokens);
  return {{"LRU", replay.lru},
          {"LFU", replay.lfu},
          {"most used", replay.most_used},
          {"Belady", replay.belady}};
}

Table offload_table(const ServingRequest& r, const plan::Offload& o,
                    const std::vector<HitRow>& rows) {
  const Serving& s = r.serving;
  std::vector<std::string> policy;
  std::vector<double> hits, fetched, fetch, device, series, overlapped;
  for (const HitRow& row : rows) {
    const plan::OffloadBound b = offload_bound(s, o, row.hits);
    policy.push_back(row.policy);
    hits.push_back(100 * row.hits);
    fetched.push_back(b.fetched / 1e6);
    fetch.push_back(1e3 * b.fetch_s);
    device.push_back(1e3 * b.device_s);
    series.push_back(b.in_series);
    overlapped.push_back(b.overlapped);
  }
  Table t{.id = "offload",
          .title = fmt::format("Experts {}: {} of {} of a layer on the device", o.where, o.held,
                               s.law.experts),
          .reading = fmt::format(
              "One sequence, one token after the other; a chosen expert that is not on the device "
              "is fetched at {}/s. {} in series: the device waits for each fetch; overlapped: all "
              "of it is hidden behind compute, which needs to know the experts ahead.",
              bytes_text(o.bandwidth),
              r.trace.empty() ? "Hit rates are those of independent requests under the law of "
                                "routing: neighbours in a text share more experts than that."
                              : "Hit rates are those of the trace's tokens in its order; Belady is "
                                "the best that any policy could do."),
          .section = of_device};
  t.columns = {
      text_column("policy", policy),
      number_column("caught", "%", "requests that find their expert on the device", hits, 1),
      number_column("fetched", "MB/token", "bytes of experts", fetched, 2),
      number_column("fetching", "ms", "of a token", fetch, 3),
      number_column("device", "ms", "of a token, memory or compute", device, 3),
      number_column("in series", "tok/s", "at most, nothing hidden", series, 2),
      number_column("overlapped", "tok/s", "at most, all hidden", overlapped, 2)};
  return t;
}

std::string count_of(const char* thing, Count n) {
  return fmt::format("{} {}{}", n, thing, n == 1 ? "" : "s");
}

void tell_fit(Report& r, const Serving& s, const std::vector<Fit>& fits) {
  if (s.device.memory <= 0)
    return;
  if (fits.empty()) {
    r.warnings.push_back(
        fmt::format("No number of {} up to 65,536 holds {} with one sequence of {} tokens in {}.",
                    s.device.name, s.model.name, s.context, s.weights.name));
    return;
  }
  const Fit& f = fits.front();
  r.findings.push_back(
      {fmt::format("{} {} {} in {} with room for {} of {} tokens.",
                   devices_text(s, f.spread.devices), f.spread.devices == 1 ? "holds" : "hold",
                   s.model.name, s.weights.name, count_of("sequence", f.sequences), s.context),
       {{.table = "cards", .column = "devices"}, {.table = "cards", .column = "sequences"}}});
}

void tell_crossover(Report& r, const Serving& s, const plan::Spread& spread) {
  if (s.device.flops16 <= 0)
    return;
  const Count at = crossover(s, spread);
  r.findings.push_back(
      {at > 0 ? fmt::format("Decoding is bound by memory below a batch of {} and by compute from "
                            "there on.",
                            at)
              : fmt::format(
                    "Decoding is bound by memory at every batch up to 1,048,576: the cache of {} "
                    "tokens alone takes longer to read than the products take.",
                    s.context),
       {}});
}

void add_offload(Report& r, const ServingRequest& q, const std::vector<Fit>& fits) {
  if (!q.offload)
    return;
  plan::Offload o = *q.offload;
  const Count most = q.serving.device.memory > 0 ? plan::most_held(q.serving, 1) : -1;
  if (o.held < 0)
    o.held = most;
  if (o.held < 0) {
    throw Error(Exit::usage, concat("--offload: not even the weights besides experts and one "
                                    "sequence fit ",
                                    q.serving.device.name))
        .hint("a shorter --context, another --weights, or held=N where the memory is not known");
  }
  plan::CacheReplay replay;
  const std::vector<HitRow> rows = hit_rows(q, o.held, replay);
  r.tables.push_back(offload_table(q, o, rows));
  if (q.serving.device.memory > 0 && o.held > most) {
    r.warnings.push_back(fmt::format("{} has room for {} experts a layer, not for {}.",
                                     q.serving.device.name, std::max<Count>(0, most), o.held));
  }
  if (!q.trace.empty()) {
    const double one = q.serving.weights.expert(q.serving.model) / o.bandwidth *
                       double(q.serving.model.moe_layers()) /
                       double(std::max<std::size_t>(1, q.serving.law.layer.size()));
    r.findings.push_back(
        {fmt::format("With LRU half of all tokens wait {:.2f} ms for experts, one of a "
                     "hundred {:.2f} ms ({} tokens replayed).",
                     1e3 * one * replay.missed_p50, 1e3 * one * replay.missed_p99, replay.tokens),
         {}});
  }
  if (!fits.empty() && fits.front().spread.devices == 1)
    r.warnings.push_back("All experts fit the device: there is no need to keep any elsewhere.");
}

// --devices N: of the two ways to cut the one that fits more.
Fit asked_fit(const ServingRequest& q) {
  const Serving& s = q.serving;
  Fit best{.spread = {.devices = 0}, .sequences = -2};
  for (const plan::Cut cut : {plan::Cut::tensor, plan::Cut::expert}) {
    const plan::Spread spread{q.devices, cut};
    if (!can_cut(s.model, spread))
      continue;
    if (const Fit f = fit(s, spread); f.sequences > best.sequences)
      best = f;
  }
  if (best.spread.devices == 0) {
    throw Error(Exit::usage,
                fmt::format("--devices {} divides neither the heads nor the experts of {}",
                            q.devices, s.model.name))
        .hint("moe plan MODEL --device NAME lists numbers that do");
  }
  if (s.device.memory > 0 && best.sequences < 1) {
    throw Error(Exit::usage,
                fmt::format("{} do not hold {} with one sequence of {} tokens in {}",
                            devices_text(s, q.devices), s.model.name, s.context, s.weights.name))
        .hint("more --devices, another --weights, a shorter --context, or --offload");
  }
  return best;
}

Report start_of(const Serving& s) {
  Report r{.title = fmt::format("{} on {}", s.model.name, s.device.name)};
  r.facts = {
      {"device", fmt::format("{}: {} at {}/s", s.device.name, bytes_text(s.device.memory),
                             bytes_text(s.device.bandwidth))},
      {"its figures", s.device.source},
      {"weights", fmt::format("{}, {}", s.weights.name, bytes_text(s.weights.all(s.model)))}};
  if (s.device.flops16 > 0) {
    r.facts.emplace_back(
        "products",
        fmt::format("{} in 16 bits, {} as these weights are multiplied",
                    rate_text(s.device.flops16), rate_text(s.device.flops(s.weights.bits))));
  }
  if (s.model.moe())
    r.facts.emplace_back("routing", s.law.name);
  return r;
}

}  // namespace

Report serving_report(const ServingRequest& q) {
  const Serving& s = q.serving;
  Report r = start_of(s);
  const std::vector<Fit> all = fits(s);
  tell_fit(r, s, all);
  plan::Spread spread = all.empty() ? plan::Spread{} : all.front().spread;
  Count most = all.empty() ? 256 : all.front().sequences;
  if (q.devices > 0) {
    const Fit asked = asked_fit(q);
    spread = asked.spread;
    most = asked.sequences;
  }
  most = std::clamp<Count>(most, 1, 4096);
  r.tables.push_back(memory_stack(s));
  if (!all.empty())
    r.tables.push_back(fits_table(s, all));
  tell_crossover(r, s, spread);
  const Table decode = decode_table(s, spread, most);
  r.tables.push_back(decode);
  if (most > 2)
    r.tables.push_back(decode_chart(decode));
  if (s.device.flops16 > 0) {
    for (Table& t : roofline_tables(s, most))
      r.tables.push_back(std::move(t));
  }
  r.tables.push_back(prefill_table(s, spread));
  add_offload(r, q, all);
  return r;
}

}  // namespace moe
