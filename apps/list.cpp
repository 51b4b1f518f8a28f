// moe list: what there is to choose from, straight from the registries.
#include <fmt/format.h>

#include <algorithm>

#include "analysis/report/render.h"
#include "analysis/report/utf8.h"
#include "apps/balance_values.h"
#include "apps/command.h"
#include "apps/kinds.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/backend/backend.h"
#include "lib/core/error.h"

namespace moe {
namespace {

// What of a device's operations is its own, and what runs by the definition on host copies.
std::string own_operations(const std::string& device) {
  std::unique_ptr<Backend<float>> backend;
  try {
    backend = make_backend(device);
  } catch (const Error& e) {
    return concat("Not available: ", e.what(), ".");
  }
  std::size_t native = 0;
  std::string rest;
  for (const Operation op : operations()) {
    if (backend->native(op))
      ++native;
    else if (!is_composed(op))
      rest += concat(rest.empty() ? "" : ", ", name_of(op));
  }
  if (native == 0)
    return "No native operations: all run by the definition.";
  return concat(native, " of ", operations().size(), " operations are native",
                rest.empty() ? "" : "; by the definition: ", rest, ".");
}

Table table_of(const Kind& k) {
  std::vector<std::string> name, about, examples;
  for (const auto& [n, a, e] : k.rows) {
    name.push_back(n);
    about.push_back(a);
    examples.push_back(e);
  }
  Table t{.id = std::string(k.name), .title = std::string(k.title)};
  t.columns = {{.name = "name", .cells = name}, {.name = "what it is", .cells = about}};
  if (std::ranges::any_of(examples, [](const std::string& e) { return !e.empty(); }))
    t.columns.push_back({.name = std::string(k.third), .cells = examples});
  return t;
}

// For people: nothing is cut, everything wraps.
std::string text_of(const std::vector<Kind>& all, int width, const Style& style) {
  std::string out;
  for (const Kind& k : all) {
    out += concat(out.empty() ? "" : "\n", style.bold, k.title, style.plain, "\n");
    int left = 0;
    for (const auto& [name, about, examples] : k.rows)
      left = std::max(left, drawing::columns(name));
    const std::string indent(std::size_t(left) + 4, ' ');
    for (const auto& [name, about, examples] : k.rows) {
      std::string mark = "  " + drawing::padded(name, left, false) + "  ";
      for (const std::string& l : drawing::wrap(about, std::max(20, width - left - 4))) {
        out += mark + l + "\n";
        mark = indent;
      }
      if (examples.empty() || examples == name)
        continue;
      for (const std::string& l : drawing::wrap(examples, std::max(20, width - left - 4)))
        out += concat(indent, style.dim, l, style.plain, "\n");
    }
  }
  return out;
}

constexpr const char* drawn_only[] = {"--experts",   "--k",    "--layers",
                                      "--sequences", "--skew", "--seed"};

constexpr const char* values_group = "balance --values";

void add_values(CommandLine& cli, bool& values, BalanceValues& b) {
  cli.add_flag("--values", values,
               "with `balance`: what each system's balance loss reports for one batch, and the "
               "coefficient that equals 0.01 in the convention of this program")
      .group(values_group);
  const OptionGroup batch(cli, values_group);
  batch.number("--tokens", b.tokens, "of the batch", whole(1, 10'000'000));
  batch.number("--experts", b.experts, "of a layer", whole(1, 65536));
  batch.number("--k", b.k, "choices of a token", whole(1, 65536));
  batch.number("--layers", b.layers, "MoE layers", whole(1, 1000));
  batch.number("--sequences", b.sequences, "that the tokens are cut into", whole(1, 10'000'000));
  batch.number("--skew", b.skew, "how much logits fall with the expert's rank: skew times ln(rank)",
               real(-100, 100));
  batch.number("--seed", b.seed, "of the drawn logits", whole(0));
  batch.text("--trace", b.trace, "FILE",
             "the first --tokens rows of a trace with logits instead of drawn ones");
}

void refuse_values(const CommandLine& app, const std::string& kind, bool values) {
  if (values && kind != "balancers") {
    throw Error(Exit::usage, concat("--values compares balance losses, not ",
                                    kind.empty() ? "everything" : kind))
        .hint("moe list balance --values");
  }
  for (const Option& option : app.options()) {
    if (option.group() != values_group || !option.given() || option.name() == "--values") {
      continue;
    }
    if (!values) {
      throw Error(Exit::usage, concat(option.name(), " describes the batch of --values"))
          .hint("moe list balance --values");
    }
    if (app.given("--trace") &&
        std::ranges::find(drawn_only, option.name()) != std::end(drawn_only)) {
      throw Error(
          Exit::usage,
          concat(option.name(),
                 " applies to a generated batch; with --trace the batch comes from the trace"))
          .hint("--tokens says how many of its rows");
    }
  }
}

struct Options {
  std::string kind;
  OutputOptions out;
  bool values = false;
  BalanceValues batch;
};

// The kinds that a word names, in singular or plural; all of them for none.
std::vector<Kind> kinds_named(const std::string& word) {
  std::vector<std::string> names;
  std::vector<Kind> out;
  for (const Kind& k : kinds()) {
    names.emplace_back(k.name);
    if (word.empty() || word == k.name || word + "s" == k.name ||
        (word == "capacity" && k.name == "capacities")) {
      out.push_back(k);
    }
  }
  if (out.empty())
    no_such("kind of thing", word, names);
  return out;
}

// The kinds that a word names; of devices alone also what each computes itself.
std::vector<Kind> wanted_kinds(const std::string& word) {
  std::vector<Kind> out = kinds_named(word);
  if (out.size() == 1 && out[0].name == "devices") {
    for (auto& [name, about, examples] : out[0].rows)
      about += concat(". ", own_operations(name));
  }
  return out;
}

void write_list(const std::vector<Kind>& wanted, const OutputOptions& out) {
  if (format_for(out) == "text") {
    const bool screen = out.to_screen();
    const int width = screen ? std::min(terminal_width(stdout), 120) : 100;
    write_result(out.file, text_of(wanted, width, screen ? Style::of(stdout) : Style{}), out.force);
    return;
  }
  Report report;
  report.title = "What moe offers";
  for (const Kind& k : wanted)
    report.tables.push_back(table_of(k));
  write_report(report, out);
}

int list(const Options& o, const CommandLine& cli) {
  check_output(o.out);
  const std::string kind = o.kind == "balance" ? "balancers" : o.kind;
  refuse_values(cli, kind, o.values);
  if (o.values)
    write_report(balance_values(o.batch), o.out);
  else
    write_list(wanted_kinds(kind), o.out);
  return 0;
}

}  // namespace

Run list_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option(
      "kind", o->kind,
      "routers, balancers, capacities, mixers, datasets, tokenizers, devices, models, fields, "
      "activations, "
      "metrics, measures, studies, conventions, patterns, imports, exports, policies, placements, "
      "formats, commands; "
      "all where left out");
  add_values(cli, o->values, o->batch);
  add_output(cli, o->out, "where the list goes");
  return [o, cli] {
    return list(*o, cli);
  };
}

}  // namespace moe
