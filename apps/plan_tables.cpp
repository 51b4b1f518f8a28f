// Numbers of a plan as tables. Bytes stand whole for programs and in GiB for people; every column
// says what it counts.
#include "apps/plan_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/terminal.h"
#include "lib/core/text.h"
#include "lib/plan/conventions.h"
#include "lib/plan/published.h"

namespace moe {
namespace {

constexpr double gib = 1024.0 * 1024 * 1024;

// Parameters as publications say them: 46.7B.
std::string billions(double n) {
  return n < 1e9    ? fmt::format("{:.1f}M", n / 1e6)
         : n < 1e12 ? fmt::format("{:.{}f}B", n / 1e9, n < 1e11 ? 1 : 0)
                    : fmt::format("{:.2f}T", n / 1e12);
}
std::string whole_text(double n) {
  return fmt::format("{}", std::llround(n));
}

std::string layers_text(const Architecture& a) {
  const Count moe = a.moe_layers();
  const Count all = Count(a.layers.size());
  const std::string stacks = a.encoder_decoder() ? " (encoder and decoder)" : "";
  return moe == 0     ? fmt::format("{}, all dense{}", all, stacks)
         : moe == all ? fmt::format("{}, all MoE{}", all, stacks)
                      : fmt::format("{}, {} of them MoE{}", all, moe, stacks);
}

std::string sizes_text(const MixerShape& m) {
  if (m.kind == MixerKind::attention)
    return fmt::format(", {} heads, {} of keys, of {}", m.heads, m.kv_heads, m.head_dim);
  if (m.kind == MixerKind::latent)
    return fmt::format(", {} heads of {}+{}, latent {}", m.heads, m.nope, m.rope, m.kv_rank);
  return "";
}

std::string mixers_text(const Architecture& a) {
  std::vector<std::string> out;
  for (const MixerKind kind : mixer_kinds) {
    const MixerShape* first = nullptr;
    int count = 0;
    for (const LayerShape& l : a.layers) {
      for (const MixerShape& m : l.mixers) {
        if (m.kind == kind && count++ == 0)
          first = &m;
      }
    }
    if (first)
      out.push_back(fmt::format("{} x {}{}", count, name_of(kind), sizes_text(*first)));
  }
  return join(out, "; ");
}

std::string experts_text(const FeedShape& f) {
  std::string out = fmt::format("{}, {} a token, {} wide", f.experts, f.k, f.width);
  if (f.shared_width > 0)
    out += fmt::format("; shared {} wide", f.shared_width);
  return out;
}

Count context_of(const Architecture& a, const PlanOptions& o) {
  return a.context > 0 ? std::min(o.context, a.context) : o.context;
}

bool has_windows(const Architecture& a) {
  return std::ranges::any_of(a.layers, [](const LayerShape& l) {
    return std::ranges::any_of(l.mixers, [](const MixerShape& m) { return m.window > 0; });
  });
}

Table parameters_table(const ParameterCount& p) {
  std::vector<std::string> part;
  // grouped in threes where people read them, whole for programs
  std::vector<double> stored, active, share;
  const auto row = [&](std::string name, Count n, double a) {
    part.push_back(std::move(name));
    stored.push_back(double(n));
    share.push_back(100 * double(n) / double(p.total));
    active.push_back(a);
  };
  for (int i = 0; i < part_count; ++i) {
    if (p.part[i] > 0)
      row(std::string(name_of(ModelPart(i))), p.part[i], p.active[i]);
  }
  row("all", p.total, p.a0);
  Table t{.id = "parameters",
          .title = "Parameters",
          .reading = "A tied output matrix is the input embedding."};
  t.columns = {{.name = "part", .cells = part},
               {.name = "parameters", .cells = stored, .digits = 0},
               {.name = "share", .unit = "%", .cells = share, .digits = 2},
               {.name = "active",
                .meaning = "touched by one token, the whole embedding counted",
                .cells = active,
                .digits = 0}};
  return t;
}

Table active_table(const Architecture& a, const ParameterCount& p) {
  std::vector<std::string> what, value;
  const auto row = [&](const char* name, std::string text) {
    what.emplace_back(name);
    value.push_back(std::move(text));
  };
  const auto count = [&](double n) {
    return fmt::format("{} ({}, {:.2f} %)", whole_text(n), billions(n), 100 * n / double(p.total));
  };
  row("A0: everything touched", count(p.a0));
  row("A1: without input embedding", count(p.a1));
  row("A2: without output matrix too", count(p.a2));
  row("activation ratio (A0/total)", fmt::format("{:.4f}", p.activation_ratio()));
  if (const FeedShape* f = a.moe()) {
    row("expert activation ratio (k/E)", fmt::format("{:.4f}", double(f->k) / double(f->experts)));
    row("sparsity (1 - k/E)", fmt::format("{:.4f}", 1 - double(f->k) / double(f->experts)));
  }
  if (p.in_file != p.total) {
    row("in the published file",
        fmt::format("{}, with the layers that predict further tokens", p.in_file));
  }
  Table t{.id = "active",
          .title = "Active parameters",
          .reading = "Publications count in three ways; their figure is one of these."};
  t.columns = {{.name = "what", .cells = what}, {.name = "value", .cells = value}};
  return t;
}

Table compute_table(const Architecture& a, const PlanOptions& o) {
  const Count context = context_of(a, o);
  const Flops f = flops(a, context);
  const plan::Cache c = plan::cache(a, context);
  std::vector<std::string> what, value;
  const auto row = [&](std::string name, std::string text) {
    what.push_back(std::move(name));
    value.push_back(std::move(text));
  };
  row("FLOPs, products with weights", count_text(f.products));
  row(fmt::format("FLOPs, attention at {} tokens", context), count_text(f.attention));
  row(fmt::format("weights read, {}", o.weights.name),
      bytes_text(plan::active_bytes(a, o.weights.bytes)));
  if (c.per_token > 0) {
    row("cache of a token, bf16", fmt::format("{} bytes", std::llround(2 * c.per_token)));
    row(fmt::format("cache of {} tokens, bf16", context), bytes_text(2 * c.at_context));
    row(fmt::format("cache of {} tokens, fp8", context), bytes_text(c.at_context));
  }
  if (c.state > 0)
    row("states of a sequence, f32", bytes_text(4 * c.state));
  Table t{.id = "compute",
          .title = "Compute and cache of a token",
          .reading =
              "A multiply-add counts 2; forward and training: the table below. Weights read: by "
              "one token "
              "alone; cache: keys and values."};
  if (a.encoder_decoder())
    t.reading += " One source and one target token together; the cache is the decoder's.";
  t.columns = {{.name = "what", .cells = what}, {.name = "value", .cells = value}};
  return t;
}

Table conventions_table(const Architecture& a, const PlanOptions& o) {
  const Count context = context_of(a, o);
  const plan::TokenFlops f = plan::token_flops(a, context);
  std::vector<std::string> name, about;
  std::vector<double> value;
  for (const plan::Convention& c : plan::conventions()) {
    if ((c.further && f.further == 0) || (!c.windows && !has_windows(a)))
      continue;
    name.emplace_back(c.name);
    about.emplace_back(c.about);
    value.push_back(plan::flops(a, context, c) / 1e9);
  }
  Table t{.id = "flops",
          .title = fmt::format("FLOPs of a token by convention, {} tokens", context),
          .reading = "A multiply-add counts 2. Publications mean one of these by FLOPs."};
  t.columns = {{.name = "convention", .cells = name},
               {.name = "of a token", .unit = "GFLOP", .cells = value, .digits = 2},
               {.name = "what it counts", .cells = about}};
  return t;
}

Table memory_table(const Architecture& a) {
  std::vector<std::string> format;
  std::vector<double> bytes, size;
  Table t{.id = "memory", .title = "Weights by format"};
  for (const plan::Format f : plan::formats) {
    const double b = plan::weight_bytes(a, f);
    format.emplace_back(name_of(f));
    bytes.push_back(b);
    size.push_back(b / gib);
    if (f >= plan::Format::int8)
      t.reading += fmt::format("{}{}: {}.", t.reading.empty() ? "" : " ", name_of(f), about(f));
  }
  t.columns = {{.name = "format", .cells = format},
               {.name = "bytes", .cells = bytes, .digits = 0},
               {.name = "size", .unit = "GiB", .cells = size, .digits = 2}};
  return t;
}

Table devices_table(const std::vector<Architecture>& models, const PlanOptions& o) {
  std::vector<std::string> name;
  std::vector<double> serve, cache, optimizer, all;
  for (const Architecture& a : models) {
    const plan::Share s = plan::share(a, o.sharding, o.weights.bytes, context_of(a, o));
    name.push_back(a.name);
    serve.push_back(s.serving / gib);
    cache.push_back(s.cache / gib);
    optimizer.push_back(s.optimizer / gib);
    all.push_back((s.weights + s.gradients + s.optimizer) / gib);
  }
  Table t{.id = "devices",
          .title = fmt::format("One of {} devices: ep {} x tp {} x zero {}", o.sharding.devices(),
                               o.sharding.experts, o.sharding.tensor, o.sharding.zero)};
  t.reading =
      "Experts are cut by ep and tp, other matrices by tp; norms and routers are on every "
      "device. ZeRO-3 shares the experts among zero ranks and the rest among ep x zero. Training: "
      "bf16 weights and gradients, f32 master weights and both moments; activations come on top.";
  const auto column = [&](std::string title, std::string meaning, std::vector<double> v) {
    t.columns.push_back({.name = std::move(title),
                         .unit = "GiB",
                         .meaning = std::move(meaning),
                         .cells = std::move(v),
                         .digits = 2});
  };
  t.columns = {{.name = "model", .cells = name}};
  column("serving", fmt::format("weights in {}, without ZeRO", o.weights.name), serve);
  column("cache", "keys and values of one sequence, bf16; states in f32", cache);
  column("training", "weights, gradients and what the optimiser keeps", all);
  column("optimiser", "of it: f32 master weights and both moments", optimizer);
  return t;
}

Table traffic_table(const Architecture& a, const PlanOptions& o) {
  std::vector<std::int64_t> ranks;
  std::vector<double> each, fp8, once;
  const Count experts = a.moe()->experts;
  std::vector<Count> shown;
  if (o.sharding.experts > 1) {
    shown = {o.sharding.experts};
  } else {
    for (Count r = 2; r <= std::min<Count>(experts, 256); r *= 2)
      shown.push_back(r);
  }
  for (const Count r : shown) {
    if (experts % r != 0)
      continue;
    const plan::AllToAll bytes = plan::all_to_all(a, r, 2);
    ranks.push_back(r);
    each.push_back(bytes.each);
    once.push_back(bytes.once);
    fp8.push_back(bytes.each / 2);
  }
  Table t{.id = "all_to_all",
          .title = "All-to-all of a MoE layer, bytes a token",
          .reading =
              fmt::format("What leaves a device for a token's experts elsewhere; the results take "
                          "the same way back in bf16. {} layers do this, and backward once more.",
                          a.moe_layers())};
  t.columns = {
      {.name = "ranks", .cells = ranks},
      {.name = "out, bf16",
       .unit = "B",
       .meaning = "a copy for every choice: k H (1 - 1/R) 2",
       .cells = each,
       .digits = 0},
      {.name = "out, fp8",
       .unit = "B",
       .meaning = "the same at one byte",
       .cells = fp8,
       .digits = 0},
      {.name = "out, once a device",
       .unit = "B",
       .meaning = "bf16, one copy a device, as expected where every choice is equally likely",
       .cells = once,
       .digits = 0}};
  return t;
}

bool sharded(const PlanOptions& o) {
  return o.sharding.devices() > 1;
}

void add_publication(Report& r, const Architecture& a, Count total) {
  const auto* m = plan::find_published(a.name);
  // not a folder of that name
  if (!m || m->name != a.name || (m->total != 0 && m->total != total))
    return;
  r.facts.emplace_back("published as", fmt::format("{} ({})", m->published, m->active));
  r.facts.emplace_back("sizes from", m->source == "config"  ? "its config.json"
                                     : m->source == "class" ? "the defaults of its class"
                                     : m->source == "total" ? "the papers, confirmed by the total"
                                                            : "the papers; the total agrees as far "
                                                              "as it was rounded");
}

Table comparison_counts(const std::vector<Architecture>& models) {
  std::vector<std::string> name, experts;
  std::vector<double> total, a0, a1, a2, ratio, sparsity;
  for (const Architecture& a : models) {
    const ParameterCount p = parameters(a);
    const FeedShape* moe = a.moe();
    name.push_back(a.name);
    total.push_back(double(p.total));
    a0.push_back(p.a0 / 1e9);
    a1.push_back(p.a1 / 1e9);
    a2.push_back(p.a2 / 1e9);
    ratio.push_back(p.activation_ratio());
    experts.push_back(moe ? fmt::format("{} of {}", moe->k, moe->experts) : "dense");
    sparsity.push_back(moe ? 1 - double(moe->k) / double(moe->experts) : NAN);
  }
  Table t{.id = "parameters",
          .title = "Parameters",
          .reading =
              "Active in billions, by the three published counts: A0 everything touched, A1 "
              "without input embedding, A2 without embedding and output matrix."};
  t.columns = {{.name = "model", .cells = name},
               {.name = "parameters", .cells = total, .digits = 0},
               {.name = "A0", .unit = "1e9", .cells = a0},
               {.name = "A1", .unit = "1e9", .cells = a1},
               {.name = "A2", .unit = "1e9", .cells = a2},
               {.name = "active/total",
                .meaning = "activation ratio, A0 over all",
                .cells = ratio,
                .digits = 4},
               {.name = "experts", .meaning = "chosen a token, of how many", .cells = experts},
               {.name = "sparsity", .meaning = "1 - k/E", .cells = sparsity, .digits = 4}};
  return t;
}

void add_formats(Table& t, const std::vector<Architecture>& models) {
  for (const plan::Format format : plan::formats) {
    std::vector<double> size;
    for (const Architecture& a : models)
      size.push_back(plan::weight_bytes(a, format) / gib);
    t.columns.push_back({.name = std::string(name_of(format)),
                         .unit = "GiB",
                         .meaning = std::string(about(format)),
                         .cells = size,
                         .digits = 1});
  }
}

Table comparison_costs(const std::vector<Architecture>& models, const PlanOptions& o) {
  std::vector<std::string> name;
  std::vector<double> work, kv, cache;
  for (const Architecture& a : models) {
    const Count context = context_of(a, o);
    const Flops f = flops(a, context);
    const plan::Cache kept = plan::cache(a, context);
    name.push_back(a.name);
    work.push_back((f.products + f.attention) / 1e9);
    kv.push_back(2 * kept.per_token);
    cache.push_back(2 * kept.at_context / gib);
  }
  Table t{.id = "cost",
          .title = "Compute and memory",
          .reading = fmt::format(
              "FLOPs of a token's forward with {} tokens before it (or a shorter context of the "
              "model), multiply-add = 2. Weights in each format: moe plan MODEL says how.",
              o.context)};
  t.columns = {{.name = "model", .cells = name},
               {.name = "forward", .unit = "GFLOP/token", .cells = work, .digits = 2},
               {.name = "cache",
                .unit = "B/token",
                .meaning = "keys and values, bf16",
                .cells = kv,
                .digits = 0},
               {.name = "cache at context",
                .unit = "GiB",
                .meaning = "of one sequence, bf16; a window keeps less",
                .cells = cache,
                .digits = 2}};
  add_formats(t, models);
  return t;
}

}  // namespace

Table towers_table(const std::vector<TowerPart>& parts, double language) {
  std::vector<std::string> part;
  std::vector<double> numbers;
  double all = language;
  const auto row = [&](const std::string& name, double n) {
    part.push_back(name);
    numbers.push_back(n);
  };
  row("language model", language);
  for (const TowerPart& p : parts) {
    row(p.name, double(p.numbers));
    all += double(p.numbers);
  }
  row("all", all);
  Table t{.id = "encoders",
          .title = "With encoders of pictures and sounds",
          .reading =
              "Counted from config.json by the tensors that these encoders and projectors "
              "have; the other tables are of the language model."};
  t.columns = {{.name = "part", .cells = part},
               {.name = "parameters", .cells = numbers, .digits = 0}};
  return t;
}

Report plan_of(const Architecture& a, const PlanOptions& o) {
  const ParameterCount p = parameters(a);
  Report r{.title = fmt::format("{}: {} parameters, {} active a token", a.name,
                                billions(double(p.total)), billions(p.a0))};
  r.facts = {{"family", a.family},
             {"layers", layers_text(a)},
             {"hidden size", fmt::format("{}", a.hidden)},
             {"mixing", mixers_text(a)}};
  if (const FeedShape* f = a.moe())
    r.facts.emplace_back("experts", experts_text(*f));
  r.facts.emplace_back("vocabulary",
                       fmt::format("{}{}", a.vocabulary, a.tied ? ", output tied to it" : ""));
  add_publication(r, a, p.total);
  r.tables = {parameters_table(p), active_table(a, p), compute_table(a, o), conventions_table(a, o),
              memory_table(a)};
  if (sharded(o))
    r.tables.push_back(devices_table({a}, o));
  if (a.moe() && a.moe()->experts > 1)
    r.tables.push_back(traffic_table(a, o));
  return r;
}

Report comparison_of(const std::vector<Architecture>& models, const PlanOptions& o) {
  Report r{.title = fmt::format("{} models side by side", models.size())};
  r.tables = {comparison_counts(models), comparison_costs(models, o)};
  if (sharded(o))
    r.tables.push_back(devices_table(models, o));
  return r;
}

Table published_table() {
  std::vector<std::string> name, published, source;
  std::vector<double> total;
  for (const plan::PublishedModel& m : plan::published_models()) {
    name.emplace_back(m.name);
    total.push_back(double(parameters(plan::describe(m)).total));
    source.emplace_back(m.source);
    published.push_back(m.published.find("active") == m.published.npos
                            ? std::string(m.published)
                            : fmt::format("{} ({})", m.published, m.active));
  }
  Table t{.id = "published",
          .title = "Published models",
          .reading =
              "moe plan NAME plans one, several names compare. Behind the published figure: which "
              "count of active parameters it is. Sizes from a published config.json (config), or "
              "from papers and confirmed by the total to the last parameter (total) or as far as "
              "it was rounded (paper)."};
  t.columns = {{.name = "name", .cells = name},
               {.name = "parameters", .cells = total, .digits = 0},
               {.name = "published as", .cells = published},
               {.name = "sizes", .cells = source}};
  return t;
}

}  // namespace moe
