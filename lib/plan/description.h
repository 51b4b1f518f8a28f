// What a model is made of, in just the detail that its sizes need: layers of mixers and
// feed-forwards, nothing of what they compute. Filled from a published config.json of any family
// (also of those that this program cannot run) or from a configuration of ours; nothing is
// allocated. Letters as everywhere: H hidden, V vocabulary, E experts, k choices, d head size.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/checkpoint/json.h"
#include "lib/model/config.h"

namespace moe::plan {

using Count = std::int64_t;

enum class MixerKind { attention, latent, mamba1, mamba2, lightning };

struct Mixer {
  MixerKind kind = MixerKind::attention;
  Count heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, o_bias = false, sinks = false;
  QkNorm qk_norm = QkNorm::none;
  Count window = 0;  // keys a query sees; 0 = all
  // keys and values of the encoder's output
  bool cross = false;
  // latent attention: ranks (0 = none for q) and sizes a head
  Count q_rank = 0, kv_rank = 0, nope = 0, rope = 0, value = 0;
  // Mamba: inner width, N, groups (2), rank of dt (1)
  Count inner = 0, state = 0, groups = 0, rank = 0;
};

struct Feed {
  Count experts = 0, k = 0;  // 0 experts: dense
  Count width = 0;
  int matrices = 3;  // 3 gated, 2 not
  bool bias = false, router_bias = false, correction_bias = false;
  Count shared_width = 0;  // all shared experts together
  bool shared_gate = false;
  std::vector<Count> widths;  // instead of `width`: of each expert; 0 = one that multiplies nothing
  Count light = 0;            // parameters of all experts that multiply nothing
  // instead of (E,H): its parameters, and those of them in products
  std::optional<std::pair<Count, Count>> router;
};

struct Layer {
  std::vector<Mixer> mixers;
  std::optional<Feed> feed;
  int norms = 2;
  bool encoder = false;  // keeps no keys and values while generating
};

struct Extra {  // parameters that no rule above makes
  std::string name;
  Count parameters = 0;
};

struct Description {
  std::string name, family;
  Count hidden = 0, vocabulary = 0, context = 0;  // context 0 = not known
  // head: there is an output matrix, if only the embedding once more
  bool tied = false, head = true;
  bool norm_bias = false;
  int final_norms = 1;
  std::vector<Layer> layers;
  std::vector<Extra> extra;
  // layers that predict further tokens (DeepSeek-V3): in the file, no part of the model
  Count further_layers = 0;

  const Feed* moe() const;  // the first MoE feed-forward; null = dense
  Count moe_layers() const;
  bool encoder_decoder() const;
};

// A published config.json, or one of ours (which says everything in moe_training). Throws
// Error(input) naming file and key.
Description describe(const Json&, const std::string& file, const std::string& name);
Description describe(const ModelConfig&, const std::string& name);
Description describe_path(const std::string& path);  // a config.json, a folder with one, or a run
std::vector<std::string> known_types();              // model_type values that describe() reads

}  // namespace moe::plan
