// moe synth: a trace that nobody computed, whose answers are known.
#include "analysis/synth/synth.h"

#include <fmt/format.h>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"

namespace moe {
namespace {

struct Options {
  std::string pattern = "uniform", file;
  SynthShape shape;
  int deflate = 1;
  bool force = false;
};

std::string where(const Known& k) {
  std::string out;
  for (const Index i : k.at)
    out += concat(out.empty() ? "[" : ",", i);
  return out.empty() ? "" : out + "]";
}

int synth(const Options& o, const std::string& json) {
  const Synth made = make_synth(o.pattern, o.shape);
  refuse_existing(o.file, o.force);
  TraceHeader h;
  h.producer = "moe " + version_short();
  h.engine_version = version_short();
  h.command = command_line();
  h.config = json;
  h.created_utc = now_utc();
  h.model_id = "synthetic " + made.resolved;
  TraceWriterOptions w;
  w.force = o.force;
  w.deflate = o.deflate;
  Progress progress("tokens", double(o.shape.tokens), "tok");
  write_synth(o.file, made, h, w, [&](std::uint64_t rows) { progress.update(double(rows)); });
  const double n = double(o.shape.tokens) * o.shape.layers * o.shape.k;
  note(fmt::format("wrote {}: {} tokens x {} layers x {} choices = {} assignments, {}", o.file,
                   o.shape.tokens, o.shape.layers, o.shape.k, count_text(n),
                   bytes_text(double(std::filesystem::file_size(o.file)))));
  note("known for every layer, give or take chance (one deviation):");
  for (const Known& k : made.pattern->known())
    write_stderr(fmt::format("  {:<38} {:<10.6g} ± {:.2g}\n", k.id + where(k), k.value, k.noise));
  return 0;
}

void add_shape(CommandLine& cli, SynthShape& s) {
  const auto count = [&](const char* name, auto& value, const char* about, std::int64_t least,
                         std::int64_t most) {
    cli.add_option(name, value, about).show_default().check(whole(least, most));
  };
  count("--tokens", s.tokens, "rows, T", 0, std::int64_t{1} << 40);
  count("--layers", s.layers, "MoE layers, L", 1, 4096);
  count("--experts", s.experts, "experts of a layer, E", 1, 65534);
  count("--topk", s.k, "choices of a token, K", 1, 65534);
  count("--sequence", s.sequence, "rows of a sequence", 1, 1 << 30);
  count("--step", s.step, "rows of an engine step", 1, 1 << 30);
  count("--domains", s.domains, "label the sequences with so many domains in turn; 0 = no labels",
        0, 65534);
  count("--ranks", s.ranks,
        "record a data-parallel rank for every row, sequences in turn; 0 = none", 0, 65535);
  count("--vocab", s.vocabulary, "token ids are drawn evenly from so many", 1,
        std::numeric_limits<std::int32_t>::max());
  cli.add_flag("--weights", s.weights, "record combine weights, 1/K each");
  count("--seed", s.seed, "of the random numbers", 0, std::numeric_limits<std::int64_t>::max());
}

}  // namespace

Run synth_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("pattern", o->pattern,
                 "how experts are drawn, NAME:key=value,...: moe list patterns")
      .show_default()
      .type_name("SPEC");
  cli.add_option("-o,--output", o->file, "the trace to write").required().type_name("FILE");
  add_shape(cli, o->shape);
  cli.add_option(
         "--deflate", o->deflate,
         "0 = chunks are stored uncompressed and without checksums; 1..9 = shuffle, deflate "
         "at this level, checksum")
      .show_default()
      .check(whole(0, 9));
  cli.add_flag("--force", o->force, "replace a file that exists");
  add_config(cli);
  return [o, cli] {
    return synth(*o, options_json(cli));
  };
}

}  // namespace moe
