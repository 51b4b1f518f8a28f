// Options of machines, and from them the requests that lib/plan answers.
#include "apps/plan_machine.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "apps/machine_rates.h"
#include "apps/output.h"
#include "apps/plan_cluster.h"
#include "apps/plan_serving.h"
#include "apps/plan_simulation.h"
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
  o.held = spec.has("held") ? spec.get("held", 0, 0) : -1;
  spec.done();
  return o;
}

struct CurvePoint {
  double rows, share;
};

// "16:0.1,256:0.4,4096:0.7": share of its rate that a product of so many rows reaches.
std::vector<CurvePoint> curve_of(const std::string& text) {
  std::vector<CurvePoint> out;
  for (const std::string& word : split(text, ',')) {
    CurvePoint p{};
    const char* const end = word.data() + word.size();
    const auto rows = std::from_chars(word.data(), end, p.rows);
    const bool colon = rows.ec == std::errc{} && rows.ptr != end && *rows.ptr == ':';
    const auto share = colon ? std::from_chars(rows.ptr + 1, end, p.share) : rows;
    if (!colon || share.ec != std::errc{} || share.ptr != end || !(p.rows > 0) ||
        !(p.share > 0 && p.share <= 1) || (!out.empty() && p.rows <= out.back().rows)) {
      throw Error(Exit::usage, concat("--curve has '", word, "'"))
          .hint("rows and a share of at most 1, rows rising: 16:0.1,256:0.4,4096:0.7");
    }
    out.push_back(p);
  }
  return out;
}
double share_at(const std::vector<CurvePoint>& curve, double rows) {
  if (rows <= curve.front().rows)
    return curve.front().share;
  for (std::size_t i = 1; i < curve.size(); ++i) {
    const CurvePoint& a = curve[i - 1];
    const CurvePoint& b = curve[i];
    if (rows <= b.rows)
      return a.share + (b.share - a.share) * std::log(rows / a.rows) / std::log(b.rows / a.rows);
  }
  return curve.back().share;
}

Report on_cluster(const NamedModel& m, const MachineOptions& o) {
  ClusterRequest q{.model = m.shape,
                   .cluster = plan::cluster_of(o.cluster),
                   .search = o.search,
                   .usable = o.usable};
  for (const std::string& text : o.layouts)
    q.layouts.push_back(plan::layout_of(text));
  if (q.layouts.empty())
    q.layouts.emplace_back();
  q.options.law = law_of(o.routing, m.shape);
  q.routing = o.routing;
  if (o.eplb >= 0) {
    const plan::ChoiceLaw law = q.options.law;
    q.routing += concat(", placed by EPLB with ", o.eplb, " slots more than experts");
    q.options.imbalance = [law, extra = o.eplb](Count ranks) {
      return plan::balanced_imbalance(law, ranks, extra);
    };
  }
  if (!o.curve.empty()) {
    q.own_efficiency = true;
    q.options.efficiency = [curve = curve_of(o.curve)](double rows) {
      return share_at(curve, rows);
    };
  }
  return cluster_report(q);
}

Report simulated(const NamedModel& m, const MachineOptions& o, Count context) {
  if (o.cluster.empty()) {
    throw Error(Exit::usage, "--simulate plays a trace through a cluster, and none is named")
        .hint("--cluster h100:nodes=2");
  }
  plan::Simulation s{.model = m.shape,
                     .cluster = plan::cluster_of(o.cluster),
                     .weights = m.weights,
                     .context = context,
                     .extra = std::max<Count>(0, o.eplb),
                     .rebalance = o.rebalance};
  if (o.eplb >= 0 && o.rebalance == 0) {
    throw Error(Exit::usage, "--eplb has no loads to place by before the first step of a trace")
        .hint("--rebalance 64: place anew every 64 steps");
  }
  return simulation_report(o.simulate, s);
}

// What this machine reaches, in the place of a data sheet.
plan::Device this_machine() {
  const auto device = open_device({});
  const MachineRates r = measure_machine(*device, 0.1);
  plan::Device d{.name = "here", .source = "measured now, as moe bench machine does"};
  d.memory = memory_of_machine();
  d.bandwidth = r.memory;
  d.flops16 = r.product_rate(1024);
  return d;
}

Report on_device(const NamedModel& m, const MachineOptions& o, Count context) {
  const Count seen = m.shape.context > 0 ? std::min(context, m.shape.context) : context;
  ServingRequest q{.serving = {.model = m.shape,
                               .device = o.here ? this_machine() : plan::device_of(o.device),
                               .weights = m.weights,
                               .law = law_of(o.routing, m.shape),
                               .context = seen,
                               .cache_bits = o.cache_bits,
                               .usable = o.usable,
                               .chunk = o.chunk},
                   .devices = o.devices,
                   .trace_tokens = std::uint64_t(o.trace_tokens)};
  if (!o.offload.empty()) {
    if (o.devices > 1) {
      throw Error(Exit::usage, concat("--offload is of one device, and --devices says ", o.devices))
          .hint("--devices 1, or none");
    }
    q.offload = offload_of(o.offload);
    q.devices = 0;
  }
  if (is_trace(o.routing))
    q.trace = o.routing;
  Report r = serving_report(q);
  if (seen < context) {
    r.warnings.push_back(concat("The model's own context is ", seen, " tokens, so --context ",
                                context, " counts as that."));
  }
  return r;
}

void add_cluster(CommandLine& cli, MachineOptions& o) {
  const OptionGroup cluster(cli, "A cluster that trains");
  cluster.text("--cluster", o.cluster, "SPEC", "h100:nodes=256,gpus=8,link=450GB/s,net=50GB/s");
  cluster.repeatable("--layout", o.layouts,
                     "ep=64,pp=16,tp=1,vp=1,dp=N,zero=1,limit_nodes=4,mbs=1,gbs=N,sequence=4096,"
                     "bits=8,recompute=0,graphs=0,mtp=0,dispatch=node,overlap=0; moe list layouts "
                     "says what each is; given again, layouts stand side by side");
  cluster.flag("--search", o.search, "try every layout that fits; --layout says what is fixed");
  cluster
      .add("--eplb", o.eplb, "experts placed by EPLB with so many slots of a layer beyond one each")
      .check(whole(0, 1 << 20));
  cluster.text("--curve", o.curve, "LIST",
               "share of its rate that a product of so many rows reaches, 16:0.1,256:0.4,4096:0.7; "
               "default: as fitted to published runs");
  cluster.text("--simulate", o.simulate, "TRACE",
               "play this trace's routing through the cluster, every device an expert rank");
  cluster.number("--rebalance", o.rebalance, "steps between placements by EPLB; 0 = never",
                 whole(0, 1 << 30));
  cluster.number("--grow", o.grow,
                 "the model with 2, 4, 8, ... times its experts up to so many; needs no cluster",
                 whole(0, 1 << 20));
  cluster.flag("--published", o.published,
               "published runs beside what fits without them predict; needs no model");
}

}  // namespace

void add_machine(CommandLine& cli, MachineOptions& o) {
  const OptionGroup device(cli, "One kind of device");
  std::vector<std::string> names;
  for (const plan::Device& d : plan::devices())
    names.push_back(d.name);
  const std::string about = concat("what serves: ", join(names),
                                   ", cpu:bandwidth=80GB/s, or "
                                   "memory=80GB,bandwidth=3.35TB/s,flops=989T");
  device.text("--device", o.device, "SPEC", about.c_str());
  device.flag("--here", o.here,
              "this machine, measured now (a few seconds): memory, its bandwidth, products in f32");
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
  add_cluster(cli, o);
}

bool wanted(const MachineOptions& o) {
  return !o.device.empty() || !o.cluster.empty() || o.here || o.grow > 0 || !o.simulate.empty() ||
         !o.layouts.empty() || o.search || !o.curve.empty() || o.eplb >= 0 || o.rebalance > 0 ||
         !o.offload.empty() || o.devices > 0 || o.routing != "even";
}

namespace {

void refuse_idle(bool given, const char* option, const char* needs, const char* hint) {
  if (given)
    throw Error(Exit::usage, concat(option, " says something of ", needs)).hint(hint);
}

// Options that nothing would read.
void check_idle(const MachineOptions& o) {
  const bool trains = !o.cluster.empty() && o.simulate.empty() && o.grow == 0;
  const bool serves = !o.device.empty() || o.here;
  const char* cluster = "a cluster that trains";
  const char* device = "one kind of device";
  refuse_idle(!trains && !o.layouts.empty(), "--layout", cluster, "--cluster h100:nodes=2");
  refuse_idle(!trains && o.search, "--search", cluster, "--cluster h100:nodes=2");
  refuse_idle(!trains && !o.curve.empty(), "--curve", cluster, "--cluster h100:nodes=2");
  refuse_idle(o.cluster.empty() && o.eplb >= 0, "--eplb", "a cluster", "--cluster h100:nodes=2");
  refuse_idle(o.simulate.empty() && o.rebalance > 0, "--rebalance", "a simulation",
              "--simulate TRACE --cluster h100:nodes=2");
  refuse_idle(!serves && !o.offload.empty(), "--offload", device, "--device h100");
  refuse_idle(!serves && o.devices > 0, "--devices", device,
              "--device h100, or nodes= of a cluster");
  refuse_idle(!serves && !trains && o.routing != "even", "--routing",
              "a device or a cluster that trains",
              "--device h100; a simulation routes as its trace does");
}

}  // namespace

Report machine_report(const std::vector<NamedModel>& models, const MachineOptions& o,
                      Count context) {
  check_idle(o);
  if (models.size() != 1) {
    throw Error(Exit::usage,
                concat("a machine is planned for one model, and ", models.size(), " are named"))
        .hint("one model a plan; several without --device and --cluster make a table");
  }
  if (!o.device.empty() && !o.cluster.empty()) {
    throw Error(Exit::usage, "--device and --cluster are given both")
        .hint("--device plans serving, --cluster plans training: one a plan");
  }
  if (o.here && (!o.device.empty() || !o.cluster.empty()))
    throw Error(Exit::usage, "--here is a device of its own").hint("--here, or --device NAME");
  if (o.grow > 0)
    return growth_report(models[0].shape, models[0].weights, o.grow);
  if (!o.simulate.empty())
    return simulated(models[0], o, context);
  if (!o.cluster.empty())
    return on_cluster(models[0], o);
  return on_device(models[0], o, context);
}

}  // namespace moe
