// What an import needs of a Hugging Face config.json: how many layers, which of them are MoE, how
// many experts and choices, and how router logits become choices. Families name these fields
// differently; all known names are tried.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/trace/trace.h"

namespace moe {

struct RecordedModel {
  std::string name, model_type;  // name: the file, in quotes
  int layers = 0;                // hidden layers
  std::vector<int> moe_layers;   // absolute numbers, ascending
  int experts = 0, topk = 0;     // 0 = not said
  int shared = 0, groups = 1, topk_groups = 1;
  ScoreFn score_fn = ScoreFn::unknown;
  int norm_topk = 255;  // as in TraceLayer
  float routed_scale = 1;
  // choices take a learned bias or groups that logits alone do not show
  bool needs_checkpoint = false;

  bool is_dense(int layer) const;
};

RecordedModel read_model_config(const std::filesystem::path&);  // throws Error(input)

}  // namespace moe
