#include "lib/run/step_memory.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/model/config.h"
#include "lib/model/cost.h"
#include "lib/model/layer_list.h"
#include "lib/model/mixer_type.h"
#include "lib/model/parts.h"
#include "lib/model/sizes.h"
#include "lib/run/router_warnings.h"

namespace moe {
namespace {

constexpr double f32 = sizeof(float);

// Bytes of parameters: of no single layer, and of the layer with most.
struct Parted {
  double outside = 0, dense = 0, experts = 0;  // the last two: of one layer
  double largest = 0;                          // parameter
};

Parted parted(const ModelConfig& config) {
  Architecture a = architecture_of(config);
  const std::vector<LayerShape> layers = std::move(a.layers);
  a.layers.clear();
  Parted out{.outside = f32 * double(parameters(a).total)};
  a.extra.clear();
  const double bare = f32 * double(parameters(a).total);
  for (const LayerShape& layer : layers) {
    a.layers = {layer};
    const ParameterCount count = parameters(a);
    const double experts = f32 * double(count.part[std::size_t(ModelPart::experts)]);
    out.experts = std::max(out.experts, experts);
    out.dense = std::max(out.dense, f32 * double(count.total) - bare - experts);
    const double matrices = layer.feed ? layer.feed->matrices : 1;
    out.largest = std::max(out.largest, experts / matrices);
  }
  out.largest = std::max(out.largest, f32 * double(config.vocabulary) * config.hidden);
  return out;
}

// Bytes of one copy of what a rank has, without shards.
struct Held {
  double dense = 0, experts = 0;  // weights; `experts`: those here
  double all_experts = 0;
  double dense_gradient = 0, expert_gradient = 0;

  double gradient() const {
    return dense_gradient + expert_gradient;
  }
};

// The group that trains with the pieces of a part (lib/model/inventory.cpp); mixers have their own.
const char* group_of(ModelPart part) {
  switch (part) {
    case ModelPart::embedding:
    case ModelPart::head:
      return "embedding";
    case ModelPart::dense:
      return "dense";
    case ModelPart::router:
      return "router";
    case ModelPart::experts:
      return "experts";
    case ModelPart::shared:
      return "shared";
    case ModelPart::latent:
      return "latent";
    case ModelPart::rest:
      return "norms";
    case ModelPart::attention:
      break;
  }
  throw Error(Exit::bug, "a mixer trains by its name");
}

double bytes_of(const std::vector<WeightPiece>& pieces,
                const std::function<bool(const WeightPiece&)>& counts) {
  double out = 0;
  for (const WeightPiece& p : pieces) {
    if (p.moved == MovedBy::gradient && counts(p))
      out += f32 * p.size() * double(p.count);
  }
  return out;
}

// Of the mixers that train, by their names.
double trained_mixers(const ModelConfig& config, const Architecture& a,
                      const std::string& trained) {
  const std::vector<std::string> specs = layer_mixers(config.mixer, config.layers);
  double out = 0;
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    bool own = true;  // the first is the layer's; others stand in a feed's place or in experts
    for (const MixerShape& m : a.layers[l].mixers) {
      const std::string name = m.cross                      ? "cross_attention"
                               : own && specs[l] != no_part ? Spec(specs[l]).name()
                                                            : "";
      own = own && m.cross;
      PieceList list;
      add_pieces(m, a.hidden, list);
      if (name.empty() || trains_group(trained, name))
        out += bytes_of(list.all, [](const WeightPiece&) { return true; });
    }
  }
  return out;
}

// Of what trains outside the experts; a little more where parts share a name.
double trained_outside(const ModelConfig& config, const std::string& trained) {
  const Architecture a = architecture_of(config);
  const auto counts = [&](const WeightPiece& p) {
    if (p.part == ModelPart::experts || p.part == ModelPart::attention)
      return false;
    const std::string group = group_of(p.part);
    return trains_group(trained, group) || (group == "norms" && trains_group(trained, "streams")) ||
           (group == "embedding" && trains_group(trained, "projector"));
  };
  return bytes_of(pieces(a), counts) + trained_mixers(config, a, trained);
}

Held held(const ModelConfig& config, const ModelCost& c, const std::string& trained, double ep) {
  Held out;
  out.all_experts = double(c.expert_parameters) * f32 + double(c.weight_bytes) -
                    double(c.parameters) * f32;  // with their padding
  const double experts = config.moe_layers() > 0 ? config.moe.experts : 1;
  out.experts = out.all_experts * std::ceil(experts / ep) / experts;
  out.dense = double(c.weight_bytes) - out.all_experts;
  out.dense_gradient = double(c.optimizer_bytes) / 3 - out.all_experts;
  if (!trains_group(trained, "all"))
    out.dense_gradient = std::min(out.dense_gradient, trained_outside(config, trained));
  if (trains_group(trained, "experts"))
    out.expert_gradient = out.experts;
  return out;
}

// Lanes of a rank (lib/model/lanes.h): sums that wait for their other halves, or where lanes go
// abreast the tapes of all, and between their turns the gradients.
void add_lanes(StepMemory& out, const ModelConfig& config, const ModelCost& c,
               const TrainOptions& o, Index lanes, double gradient) {
  out.lanes = double(std::bit_width(std::uint64_t(lanes)) - 1) * gradient;
  if (!counts_whole_step(config) || o.accumulate == 1)
    return;
  out.micro_batches = lanes;
  out.activations += double(lanes - 1) * double(c.tape_bytes);
  if (o.accumulate > o.lanes && o.lanes > 1)
    out.lanes = std::max(out.lanes, double(lanes) * gradient);
}

// With ZeRO-2 and 3: what a rank keeps is its share, and one layer comes and goes.
void share_out(StepMemory& out, const Held& h, const Parted& parts, const TrainOptions& o,
               const RankOptions& layout, double shards, double owners, double replicas) {
  const double experts = parts.experts / (layout.move == Move::weights ? 1 : layout.expert_ranks);
  const double layer = parts.dense + experts;
  // What one layer gives back, the allocator does not give to the next in whole: measured, a
  // layer's experts lie twice.
  out.passing += layer + experts + parts.outside;
  out.gradients = shards + (o.accumulate > o.lanes ? h.gradient() : 0);
  if (layout.zero < 3)
    return;
  const bool all = trains_group(o.trained, "all");
  const double frozen = all ? 0 : h.dense - h.dense_gradient;  // whole on every rank
  const bool experts_stay = h.expert_gradient == 0;
  out.weights = frozen + (h.dense - frozen) / owners + h.experts / (experts_stay ? 1 : replicas);
  out.passing += layer + parts.outside;
}

}  // namespace

StepMemory step_memory(const ModelConfig& config, const TrainOptions& o, const RankOptions& layout,
                       int ranks, double few_bits) {
  const ModelCost c = cost_of(config, o.sequences * o.length);
  const bool shared = ranks > 1;
  const double ep = layout.expert_ranks;
  const double owners = shared && layout.zero >= 1 ? ranks : 1;  // of what all ranks hold
  const double replicas = shared && layout.zero >= 1 ? ranks / ep : 1;
  Held h = held(config, c, o.trained, ep);
  if (few_bits > 0)
    h.experts = h.all_experts = 0;
  const double shards = h.dense_gradient / owners + h.expert_gradient / replicas;
  StepMemory out{.weights = h.dense + h.experts,
                 .gradients = h.gradient(),
                 .moments = 2 * shards,
                 .activations = double(c.activation_bytes),
                 .mapped = few_bits};
  add_lanes(out, config, c, o, std::max<Index>(1, (o.lanes + ranks - 1) / ranks), h.gradient());
  const Parted parts = parted(config);
  // sums go out and come in by bundles (lib/model/ownership.cpp): of 8 MiB, or of one parameter
  if (shared)
    out.passing = 2 * std::max(double(8 << 20), parts.largest);
  if (layout.expert_ranks > 1)  // the owner's, for the rows of each rank of its group
    out.lanes += layout.zero >= 2 ? parts.experts : h.all_experts;
  if (shared && layout.zero >= 2)
    share_out(out, h, parts, o, layout, shards, owners, replicas);
  return out;
}

}  // namespace moe
