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

// Where the numbers of a model are while it is used.
enum class Keep {
  // as_stored where matrices are in few bits and are decoded fast enough; else in_memory where the
  // model takes up to half of the machine's memory as f32, else cached with an eighth of it
  as_fits,
  in_memory,  // all of them, as f32
  cached,     // experts are read from their files when rows need them, some of them are kept
  experts_as_stored,  // experts in few bits stay so in their files, frozen; the rest may train
  // Matrices in few bits stay so, experts alone where operands of products are bf16 and those with
  // them f32. Elsewhere products make the bytes of in_memory.
  as_stored,
  // All matrices that products can read as they lie in their files stay there, whatever their
  // format: for decoding a few tokens at a time. Sums of a few rows are in another order.
  in_files,
};
// How products with matrices of 8 bits and fewer read activations: as f32, or rounded to 8 bits
// (lib/core/byte_rows.h).
enum class Activations { exact, int8 };

struct Holding {
  Keep numbers = Keep::in_memory;
  Index expert_bytes = 0;  // of cached: bytes of experts (as f32) that stay, at least one expert
  // Of cached: passes over a few tokens multiply experts as they lie, and other matrices stay in
  // their files, as with in_files.
  bool decodes = false;
  // int8: with in_files, on the processor; else Error(usage)
  Activations activations = Activations::exact;
};

// Whether a model without output matrix is refused (Error(input)).
enum class Head { needed, optional };

// How a model is wanted.
struct Loading {
  // A backend in memory of its own widens what it gets: as_stored, experts_as_stored and in_files
  // are in_memory there, or cached.
  Holding holding = {};
  // The checkpoint's weights under another router that has the same parameters (replay).
  std::string router = {};
  // Every token chooses so many experts; 0 = as trained. Error(usage) where the router has no such
  // number.
  int k = 0;
  Head head = Head::needed;
};

struct LoadedModel {
  Checkpoint checkpoint;
  std::unique_ptr<Decoder<float>> model;
  std::string family;             // model_type of its config.json
  std::optional<RunState> state;  // absent for folders from elsewhere
  std::string tokenizer = "bytes";
  std::vector<int> ends;  // ids that end a text, of its config.json and generation_config.json
  Holding holding = {};   // what came of that which was wanted; never as_fits
  bool few_bits = false;  // its files hold matrices in few bits
  bool headless = false;  // saved without its output matrix: what it computes of logits is nothing
  int trained_k = 0;      // experts a token chose in training, where that was changed; else 0
};
// Matrices of a model whose products round activations.
Index rounding_matrices(Decoder<float>&);
// A run folder (its newest valid checkpoint), a checkpoint, a Hugging Face folder of a family we
// know, or a GGUF file. A model that is not in_memory does not train, but experts_as_stored does
// beside its experts.
LoadedModel load_model(const std::filesystem::path&, Backend<float>&, const Loading& = {});
// Looks at the experts of Keep::cached, whose numbers are otherwise looked at when they are read:
// Error(input) naming the tensor where one is not finite.
void refuse_infinite(Decoder<float>&);
// Moments, router state and step of a checkpoint into a trainer of the same model. Throws
// Error(input) where they do not fit.
void load_training(const LoadedModel&, Trainer&);

}  // namespace moe
