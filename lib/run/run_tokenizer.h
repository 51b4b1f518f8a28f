// The tokenizer of a run: named by a spec, trained on the run's own text, or read from a file. A
// run keeps the file in each checkpoint, so that whatever opens the checkpoint later reads text as
// the run did.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "datasets/tokenizer.h"
#include "lib/run/run_folder.h"

namespace moe {

// What --tokenizer names: one of the registry (bytes); bpe:vocab=4096,pattern=gpt2,frequency=2,
// trained on what `data` has to train on; else a file or folder with a tokenizer.json. Throws Error
// where it is none of them, or no file that a checkpoint could keep.
std::shared_ptr<const Tokenizer> tokenizer_for_run(const std::string& name,
                                                   const std::vector<std::string>& data);
bool is_trained_first(const std::string& name);
// Rows of the embedding that it will need, before there is one: for --dry-run.
int vocabulary_for_run(const std::string& name);
// The tokenizer of a checkpoint that a run starts from: as tokenizer_of(), and `bytes` where it has
// none.
std::shared_ptr<const Tokenizer> initial_tokenizer(const std::string& checkpoint);

// The tokenizer of this model's texts: a run's own; of a folder from elsewhere, or a GGUF file,
// what its files say. Null where the model comes without one or was trained on bare ids. Throws
// Error(input) for a tokenizer that cannot be read, or is not the one that the run was trained
// with.
std::shared_ptr<const Tokenizer> tokenizer_of(const LoadedModel&);
// The same where the text goes on to be trained on: `bytes` for a run on bare ids.
std::shared_ptr<const Tokenizer> training_tokenizer(const LoadedModel&);
bool has_tokenizer(const LoadedModel&);  // of a run: text was what it was trained on
// What the state of a run calls its tokenizer: a spec, or the hash of the file in its checkpoints,
// which may be one of those kept from the model that the run began with.
std::string kept_name(const Tokenizer&, const KeptFiles& = {});
// bare: none are written but those kept
TokenizerFiles tokenizer_files(const Tokenizer&, bool bare,
                               std::shared_ptr<const KeptFiles> = nullptr);
// What a run keeps of the checkpoint that it starts from or goes on from, `tokenizer` being the one
// that it reads text by.
std::shared_ptr<const KeptFiles> files_kept(const std::filesystem::path& checkpoint,
                                            const Tokenizer& tokenizer);

}  // namespace moe
