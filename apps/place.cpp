// moe place: where copies of experts should lie, as a file that engines read, and what that would
// bring to text that the plan was not made from.
#include <fmt/format.h>

#include <cmath>

#include "analysis/metric/metric.h"
#include "analysis/metric/place_plan.h"
#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "apps/version.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/export/placement.h"
#include "lib/files/file.h"

namespace moe {
namespace {

struct Options {
  std::string trace, policy = "eplb", to = "plan", plan, memory = "1GB";
  int gpus = 0, nodes = 1, extra = 0, groups = 0, layers = 0, bootstrap = 200;
  OutputOptions out;
};

PlacementFile plan_of(const Options& o, const TraceHeader& h,
                      const std::vector<MetricValue>& values) {
  PlacementFile p;
  p.policy = o.policy;
  p.gpus = o.gpus;
  p.nodes = o.nodes;
  p.hidden_layers = o.layers;
  for (const MetricValue& v : values) {
    if (v.id != "place_slots")
      continue;
    const auto width = std::size_t(v.dims.at(1));
    for (std::size_t l = 0; l < h.layers.size(); ++l) {
      PlacementFile::Layer& layer = p.layers.emplace_back();
      layer.number = h.layers[l].index;
      layer.experts = h.layers[l].experts;
      for (std::size_t i = 0; i < width; ++i) {
        const double slot = v.values[l * width + i];
        if (!std::isnan(slot))
          layer.slots.push_back(int(slot));
      }
    }
  }
  check_placement(p);
  return p;
}

std::string spec_of(const Options& o) {
  std::string spec =
      concat("place:gpus=", o.gpus, ",nodes=", o.nodes, ",extra=", o.extra, ",policy=", o.policy);
  return o.groups > 0 ? concat(spec, ",groups=", o.groups) : spec;
}

void check(const Options& o) {
  check_output(o.out);
  if (!o.plan.empty())
    refuse_existing(o.plan, o.out.force);
  placement_formats().at(o.to);
  place_policies().at(o.policy);
}

int place(const Options& o) {
  check(o);
  const FileTrace trace(o.trace);
  if (trace.tokens() == 0 && trace.count_steps() == 0) {
    throw Error(Exit::input, concat(in_quotes(o.trace), " holds no tokens to plan for"))
        .hint("moe show says what it holds");
  }
  const bool counted = counts_only(trace);
  Progress progress(counted ? "steps" : "tokens",
                    double(counted ? trace.count_steps() : trace.tokens()),
                    counted ? "step" : "tok");
  AnalyzeOptions options;
  options.sample_tokens = 0;
  options.bootstrap = o.bootstrap;
  options.memory = parse_size(o.memory, "--memory");
  options.progress = [&](std::uint64_t rows) {
    progress.update(double(rows));
  };
  std::vector<MetricValue> values;
  options.values = &values;
  Report r = analyze(trace, {spec_of(o)}, options);
  r.title = "Where experts should lie";
  r.facts.emplace_back("report by", "moe " + version_short());
  r.facts.emplace_back("report command", command_line());
  const std::string text =
      o.plan.empty() ? "" : placement_formats().at(o.to).make(plan_of(o, trace.header(), values));
  write_report(r, o.out);
  if (o.plan.empty())
    return 0;
  write_file(o.plan, text);
  note(fmt::format("wrote {}: {} GPUs, {} slots more than experts, {} layers", o.plan, o.gpus,
                   o.extra, trace.header().layers.size()));
  return 0;
}

void add_report(CommandLine& cli, OutputOptions& o) {
  cli.add_option("--report", o.file, "where the report goes; its ending picks the format")
      .type_name("FILE");
  cli.add_option("--format", o.format,
                 "text, md, csv, json, jsonl or html; default: by the ending of --report, or text")
      .type_name("NAME");
  cli.add_flag("--force", o.force, "replace files that exist");
}

}  // namespace

Run place_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("trace", o->trace, "the trace to plan from").required();
  cli.add_option("--gpus", o->gpus, "ranks of expert parallelism")
      .required()
      .check(whole(1, 65535));
  const OptionGroup machine(cli, "The machines");
  machine.number("--nodes", o->nodes, "that the GPUs stand in, as many in each", whole(1, 64));
  machine.number("--extra", o->extra, "slots of a layer beyond one an expert", whole(0, 1 << 20));
  machine
      .add("--groups", o->groups,
           "of the router, which eplb keeps on one node each; default: as recorded")
      .check(whole(1, 65535));
  cli.add_option("--policy", o->policy, "eplb, greedy or local: moe list policies")
      .type_name("NAME")
      .show_default();
  cli.add_option("-o,--output", o->plan, "the plan").type_name("FILE");
  cli.add_option("--to", o->to, "how it is written: plan, sglang, vllm-ascend or trtllm")
      .type_name("NAME")
      .show_default();
  cli.add_option("--layers", o->layers,
                 "hidden layers of the model, for sglang; default: up to the last MoE layer")
      .check(whole(1, 65536));
  cli.add_option("--bootstrap", o->bootstrap, "replicas behind the 95 % intervals; 0 = none")
      .show_default()
      .check(whole(0, 10000));
  cli.add_option("--memory", o->memory, "that counts may take").type_name("SIZE").show_default();
  add_report(cli, o->out);
  return [o] {
    return place(*o);
  };
}

}  // namespace moe
