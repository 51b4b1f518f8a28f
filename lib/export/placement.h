// A plan of where copies of experts lie, as files that engines read at their start. Formats are
// PLACEMENT lines of placements.def.
#pragma once
#include <string>
#include <vector>

#include "lib/core/registry.h"

namespace moe {

struct PlacementFile {
  struct Layer {
    int number = 0;          // absolute, ascending
    int experts = 0;         // E
    std::vector<int> slots;  // logical expert of each physical slot, GPU by GPU
  };
  std::string policy;
  int gpus = 1, nodes = 1;
  int hidden_layers = 0;  // of the model; 0 = up to the last layer
  std::vector<Layer> layers;

  int layers_of_model() const;
};

// The text of a file. Throws Error(input) for what the format cannot say: layers of different
// numbers of experts, where it has one number for all.
using WritePlacement = std::string(const PlacementFile&);
const Registry<WritePlacement>& placement_formats();

// Throws Error(bug) where a plan is none: an expert without a slot, an id out of range, slots that
// do not divide among the GPUs.
void check_placement(const PlacementFile&);

}  // namespace moe
