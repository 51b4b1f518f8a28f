// A run on disk: RUN/{run.json, metrics.jsonl, checkpoint-00001200/, ...}. A checkpoint is a
// Hugging Face folder (config.json, model.safetensors, tokenizer.json) with optimizer.safetensors
// and state.json beside them; MANIFEST.json makes it whole.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>

#include "lib/checkpoint/folder.h"
#include "lib/checkpoint/quant/few_bits.h"
#include "lib/model/config.h"
#include "lib/run/kept_files.h"
#include "lib/run/run_state.h"

namespace moe {

struct TokenizerFiles {
  // tokenizer.json; tokenizer_config.json; both empty where none is written
  std::string json, config_json;
  int bos = -1, boundary = -1;  // ids that begin and end a text; -1 = none
  // Files of the model that this one came from, which stay as they are, and its config.json, of
  // which every key stays that the new model does not change; null = there is no such model.
  std::shared_ptr<const KeptFiles> kept = {};
};

// Writes RUN/checkpoint-STEP whole or not at all, a tensor at a time; returns its path. Without a
// trainer there are no moments, and then weights may be rounded (bf16).
std::filesystem::path save_checkpoint(const std::filesystem::path& run, Decoder<float>&, Trainer*,
                                      const RunState&, const TokenizerFiles&,
                                      DType weights = DType::f32);

// How experts lie in a checkpoint: as the class was published, or as transformers 5 holds them, all
// of a layer in two tensors (lib/family/layouts.h).
enum class Layout { published, packed };

// A checkpoint of step 0 that stands alone: a model that was made from another one.
struct ModelFolder {
  const RunState* state = nullptr;  // of the run that it came from; null = it came from elsewhere
  const TokenizerFiles& tokenizer;
  std::function<DType(const std::string& tensor)> type;  // f32, bf16 or f16
  DType usual = DType::f32;                              // that of most tensors
  const Json& made;                                      // edit.json: how it was made
  Layout layout = Layout::published;  // packed: Error(usage) of a family that has no such layout
  // matrices in few bits, by tensor, and what config.json says of them; empty = there are none
  std::map<std::string, FewBitsFormat> few_bits = {};
  const Json* quantization_config = nullptr;
};
struct SavedModel {
  std::string family;              // model_type of its config.json
  std::vector<std::string> notes;  // sentences on what could not be kept
  std::size_t beside = 0;  // tensors beside the language model that stand there as they were
};
// Writes `folder` whole or not at all. Throws Error(usage) where it exists.
SavedModel save_model(const std::filesystem::path& folder, Decoder<float>&, const ModelFolder&);

// What a checkpoint says of its model, without its weights.
struct CheckpointConfig {
  ModelConfig config;
  std::filesystem::path path;  // its folder or GGUF file
  bool of_run = false;         // it has a state
  std::string tokenizer = "bytes";
};
CheckpointConfig read_checkpoint_config(const std::filesystem::path&);

struct LoadedModel {
  Checkpoint checkpoint;
  std::unique_ptr<Decoder<float>> model;
  std::string family;             // model_type of its config.json
  std::optional<RunState> state;  // absent for folders from elsewhere
  std::string tokenizer = "bytes";
  std::vector<int> ends;  // ids that end a text, of its config.json and generation_config.json
  // bytes of experts kept, where they are read from the file when used; -1 = all are in memory
  Index expert_limit = -1;
  bool headless = false;  // saved without its output matrix: what it computes of logits is nothing
  int trained_k = 0;      // experts a token chose in training, where that was changed; else 0
};
// Whether a model without output matrix is refused (Error(input)).
enum class Head { needed, optional };
// Bytes of experts (as f32) that are kept in memory, the others being read from the file when they
// are used:
inline constexpr Index all_experts = -1;  // no limit
// no limit where the model takes up to half of the machine's memory, else an eighth of it
inline constexpr Index as_fits = -2;
// Experts in few bits stay so, and are frozen; others are in memory. What as_fits means for a
// folder with such experts, where the backend computes in host memory.
inline constexpr Index as_stored = -3;
// All matrices that products can read as they lie in their files stay there, whatever their format:
// for decoding a few tokens at a time. as_fits where the backend computes elsewhere.
inline constexpr Index in_place = -4;
// The same, and products with matrices of 8 bits and fewer round activations to 8 bits
// (lib/core/byte_rows.h). Error(usage) where the backend computes elsewhere.
inline constexpr Index in_place_int8 = -5;
inline bool lies_in_files(Index expert_limit) {
  return expert_limit == in_place || expert_limit == in_place_int8;
}
// Matrices of a model whose products round activations.
Index rounding_matrices(Decoder<float>&);
// A run folder (its newest valid checkpoint), a checkpoint, or a Hugging Face folder of a family we
// know. With `router` the checkpoint's weights under another router that has the same parameters
// (replay); with `k` under its own, but that every token chooses k experts (Error(usage) where the
// router has no such number). A model with a limit does not train.
LoadedModel load_model(const std::filesystem::path&, Backend<float>&,
                       const std::string& router = {}, Index expert_limit = all_experts,
                       Head = Head::needed, int k = 0);
// Moments, router state and step of a checkpoint into a trainer of the same model. Throws
// Error(input) where they do not fit.
void load_training(const LoadedModel&, Trainer&);

}  // namespace moe
