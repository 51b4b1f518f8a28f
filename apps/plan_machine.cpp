// Options of machines, and from them the requests that lib/plan answers.
#include "apps/plan_machine.h"

#include <filesystem>

#include "apps/plan_serving.h"
#include "apps/values.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {
namespace {

bool is_trace(const std::string& routing) {
  std::error_code none;
  return std::filesystem::is_regular_file(routing, none) || routing.ends_with(".h5");
}

plan::ChoiceLaw law_of(const std::string& routing, const Architecture& a) {
  const FeedShape* moe = a.moe();
  if (!moe)
    return {.name = "no experts"};
  return is_trace(routing) ? plan::law_of_trace(routing, moe->experts, moe->k)
                           : plan::choice_law(routing, moe->experts, moe->k);
}

// "host:bandwidth=50GB/s,held=32", "disk:bandwidth=7GB/s"
plan::Offload offload_of(const std::string& text) {
  Spec spec(text);
  if (spec.name() != "host" && spec.name() != "disk") {
    throw Error(Exit::usage, concat("--offload: experts lie in no place named '", spec.name(), "'"))
        .hint("host:bandwidth=50GB/s or disk:bandwidth=7GB/s");
  }
  plan::Offload o{.where = spec.name() == "host" ? "in the host's memory" : "on disk"};
  const std::string bandwidth = spec.get("bandwidth", "");
  if (bandwidth.empty()) {
    throw Error(Exit::usage, concat("--offload ", text, " does not say how fast experts come"))
        .hint(concat(spec.name(), ":bandwidth=50GB/s"));
  }
  o.bandwidth = plan::parse_rate(bandwidth, "--offload: bandwidth");
  if (o.bandwidth <= 0)
    throw Error(Exit::usage, concat("--offload ", text, ": the bandwidth is 0"));
  o.held = spec.get("held", -1, 0);
  spec.done();
  return o;
}

Report on_device(const NamedModel& m, const MachineOptions& o, Count context) {
  const Count seen = m.shape.context > 0 ? std::min(context, m.shape.context) : context;
  ServingRequest q{.serving = {.model = m.shape,
                               .device = plan::device_of(o.device),
                               .weights = m.weights,
                               .law = law_of(o.routing, m.shape),
                               .context = seen,
                               .cache_bits = o.cache_bits,
                               .usable = o.usable,
                               .chunk = o.chunk},
                   .devices = o.devices,
                   .trace_tokens = std::uint64_t(o.trace_tokens)};
  if (!o.offload.empty())
    q.offload = offload_of(o.offload);
  if (is_trace(o.routing))
    q.trace = o.routing;
  Report r = serving_report(q);
  if (seen < context) {
    r.warnings.push_back(concat("The model's own context is ", seen, " tokens, so --context ",
                                context, " counts as that."));
  }
  return r;
}

}  // namespace

void add_machine(CommandLine& cli, MachineOptions& o) {
  const OptionGroup device(cli, "One kind of device");
  device.text("--device", o.device, "SPEC",
              "what serves: h100, rtx4090, ... (moe list devices of plans: docs/plan.md), "
              "cpu:bandwidth=80GB/s, or memory=80GB,bandwidth=3.35TB/s,flops=989T");
  device.number("--devices", o.devices, "how many; 0 = the fewest that hold one sequence",
                whole(0, 65536));
  device
      .text("--routing", o.routing, "SPEC",
            "which experts a batch touches: even, zipf:s=1, or a trace of this model")
      .show_default();
  device.number("--cache-bits", o.cache_bits, "of a number of keys and values", whole(1, 32));
  device.number("--usable", o.usable, "share of the memory that may be taken", real(0.01, 1));
  device.number("--chunk", o.chunk, "tokens of a prefill pass, for its activations",
                whole(1, 1 << 24));
  device.text("--offload", o.offload, "SPEC",
              "experts lie elsewhere: host:bandwidth=50GB/s or disk:bandwidth=7GB/s, held=N of a "
              "layer stay on the device (default: as many as fit)");
  device.number("--trace-tokens", o.trace_tokens, "of a trace that caches are replayed on",
                whole(1));
}

bool wanted(const MachineOptions& o) {
  return !o.device.empty();
}

Report machine_report(const std::vector<NamedModel>& models, const MachineOptions& o,
                      Count context) {
  if (models.size() != 1) {
    throw Error(Exit::usage, concat("--device plans one model, and ", models.size(), " are named"))
        .hint("one model a plan; several without --device make a table");
  }
  return on_device(models[0], o, context);
}

}  // namespace moe
