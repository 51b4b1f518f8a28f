// The layouts in which the tensors of a published model are found: as its authors published it, as
// transformers 5 holds it in memory (all experts of a layer in two tensors), under the names of the
// model without its head, or below the name of what wrapped it when it was saved.
#pragma once
#include <string>
#include <vector>

#include "lib/family/family.h"

namespace moe {

// Whether transformers 5 holds the family in another layout than the published one.
bool has_packed_layout(const std::string& family);
// The names there: experts.gate_up_proj [E,2I,H] and experts.down_proj [E,H,I] below each layer.
// Throws Error(usage) where there is no such layout.
Names packed_names(const std::string& family);

struct FoundNames {
  Names names;
  bool headless = false;  // no output matrix, and none that the embedding could stand in for
};
// The family's names, changed to those that a file has. `tensors`: its names, sorted. What is in no
// known layout keeps its published name, under which it will be missing.
FoundNames names_as_found(const std::string& family, bool tied,
                          const std::vector<std::string>& tensors);

}  // namespace moe
