// Plans as text. SGLang: expert_location.py hands the JSON's members to init_by_mapping as they
// are, so that there may be no other; a row for each hidden layer, dense ones in order.
// vLLM-Ascend: eplb's policies read {"moe_layer_count", "layer_list": [{"layer_id", "device_count",
// "device_list": [{"device_id", "device_expert"}]}]}, layers counted among MoE layers.
// TensorRT-LLM: MoeLoadBalancerConfig(num_slots, initial_global_assignments,
// layer_updates_per_iter), layers by their absolute number.
#include "lib/export/placement.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

#define PLACEMENT(id, name, about) WritePlacement placement_as_##id;
#include "lib/export/placements.def"
#undef PLACEMENT

const Registry<WritePlacement>& placement_formats() {
  static const Registry<WritePlacement> all("placement format", {
#define PLACEMENT(id, name, about) {name, about, "", placement_as_##id},
#include "lib/export/placements.def"
#undef PLACEMENT
                                                                });
  return all;
}

int PlacementFile::layers_of_model() const {
  int most = hidden_layers;
  for (const Layer& l : layers)
    most = std::max(most, l.number + 1);
  return most;
}

void check_placement(const PlacementFile& p) {
  for (const PlacementFile::Layer& l : p.layers) {
    std::vector<int> copies(std::size_t(l.experts), 0);
    bool sound = p.gpus > 0 && l.slots.size() % std::size_t(p.gpus) == 0;
    for (const int e : l.slots) {
      sound = sound && e >= 0 && e < l.experts;
      if (sound)
        ++copies[e];
    }
    if (!sound || std::count(copies.begin(), copies.end(), 0) > 0)
      throw Error(Exit::bug, concat("the plan of layer ", l.number, " is no placement"));
  }
}

namespace {

template <class List, class Text>
std::string list(const List& items, Text text, std::string_view between = ", ") {
  std::string out = "[";
  for (const auto& item : items)
    out += concat(out.size() > 1 ? between : "", text(item));
  return out + "]";
}

std::string numbers(const std::vector<int>& all) {
  return list(all, [](int n) { return std::to_string(n); });
}

using Layer = PlacementFile::Layer;

std::vector<std::vector<int>> slots_of_experts(const Layer& l) {
  std::vector<std::vector<int>> out(std::size_t(l.experts));
  for (std::size_t i = 0; i < l.slots.size(); ++i)
    out[l.slots[i]].push_back(int(i));
  return out;
}

// [experts][copies], as EPLB's log2phy and vLLM's logical_to_physical_map: -1 behind the last.
std::string padded(const Layer& l) {
  auto slots = slots_of_experts(l);
  std::size_t most = 0;
  for (const auto& s : slots)
    most = std::max(most, s.size());
  for (auto& s : slots)
    s.resize(most, -1);
  return list(slots, numbers);
}

std::string copies(const Layer& l) {
  std::vector<int> out;
  for (const auto& s : slots_of_experts(l))
    out.push_back(int(s.size()));
  return numbers(out);
}

void must_be_alike(const PlacementFile& p, const char* format) {
  for (const Layer& l : p.layers) {
    if (l.experts != p.layers[0].experts || l.slots.size() != p.layers[0].slots.size()) {
      throw Error(Exit::input, concat(format, " has one number of slots for all layers, and layer ",
                                      p.layers[0].number, " has ", p.layers[0].experts,
                                      " experts, layer ", l.number, " ", l.experts))
          .hint("--to plan, which has a list for each layer");
    }
  }
}

// A row for each hidden layer.
void must_be_numbered(const PlacementFile& p) {
  constexpr int most = 65'536;
  for (const Layer& l : p.layers) {
    const int limit = p.hidden_layers > 0 ? p.hidden_layers : most;
    if (l.number < 0 || l.number >= limit) {
      throw Error(Exit::input, concat("MoE layer ", l.number, " is not among ", limit,
                                      " hidden layers, counted from 0"))
          .hint("--layers: num_hidden_layers of the model's config.json");
    }
  }
}

// vLLM-Ascend finds an expert on a device by its id.
void must_be_alone(const Layer& l, std::size_t gpu, const std::vector<int>& experts) {
  for (const int e : experts) {
    if (std::count(experts.begin(), experts.end(), e) > 1) {
      throw Error(Exit::input, concat("GPU ", gpu, " has two copies of expert ", e, " in layer ",
                                      l.number, ", and vLLM-Ascend keeps one a device"))
          .hint("--policy greedy, which puts them on different GPUs");
    }
  }
}

constexpr std::string_view next_line = ",\n  ";

}  // namespace

std::string placement_as_plan(const PlacementFile& p) {
  std::vector<int> layers;
  std::vector<int> experts;
  for (const Layer& l : p.layers) {
    layers.push_back(l.number);
    experts.push_back(l.experts);
  }
  return concat("{\n \"format\": \"moe-placement\",\n \"version\": 1,\n \"policy\": \"", p.policy,
                "\",\n \"gpus\": ", p.gpus, ",\n \"nodes\": ", p.nodes,
                ",\n \"layers\": ", numbers(layers), ",\n \"experts\": ", numbers(experts),
                ",\n \"physical_to_logical\": ",
                list(
                    p.layers, [](const Layer& l) { return numbers(l.slots); }, next_line),
                ",\n \"logical_to_physical\": ", list(p.layers, padded, next_line),
                ",\n \"replica_counts\": ", list(p.layers, copies, next_line), "\n}\n");
}

std::string placement_as_sglang(const PlacementFile& p) {
  must_be_alike(p, "SGLang");
  must_be_numbered(p);
  const std::size_t slots = p.layers[0].slots.size();
  std::vector<int> in_order;
  for (std::size_t i = 0; i < slots; ++i)
    in_order.push_back(int(i) % p.layers[0].experts);
  std::vector<std::vector<int>> rows(std::size_t(p.layers_of_model()), in_order);
  for (const Layer& l : p.layers)
    rows[l.number] = l.slots;
  return concat("{\"physical_to_logical_map\": ", list(rows, numbers, next_line), "}\n");
}

std::string placement_as_vllm_ascend(const PlacementFile& p) {
  std::string out = concat("{\"moe_layer_count\": ", p.layers.size(), ", \"layer_list\": [");
  for (std::size_t l = 0; l < p.layers.size(); ++l) {
    const std::vector<int>& slots = p.layers[l].slots;
    const std::size_t each = slots.size() / std::size_t(p.gpus);
    out += concat(l == 0 ? "\n  " : next_line, "{\"layer_id\": ", l, ", \"device_count\": ", p.gpus,
                  ", \"device_list\": [");
    for (std::size_t g = 0; g < std::size_t(p.gpus); ++g) {
      const auto first = slots.begin() + std::ptrdiff_t(g * each);
      const std::vector<int> experts(first, first + std::ptrdiff_t(each));
      must_be_alone(p.layers[l], g, experts);
      out += concat(g == 0 ? "" : ", ", "{\"device_id\": ", g,
                    ", \"device_expert\": ", numbers(experts), "}");
    }
    out += "]}";
  }
  return out + "]}\n";
}

std::string placement_as_trtllm(const PlacementFile& p) {
  must_be_alike(p, "TensorRT-LLM");
  std::string out = concat("num_slots: ", p.layers[0].slots.size(),
                           "\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n");
  for (const Layer& l : p.layers)
    out += concat("  ", l.number, ": ", numbers(l.slots), "\n");
  return out;
}

}  // namespace moe
