// Checkpoint folders that appear whole or not at all. Files go to a hidden folder beside the final
// name; MANIFEST.json (sizes and XXH3-64 hashes) is written last, everything is synced, and one
// rename makes it `checkpoint-00001200`. Kill the program at any moment: the run folder holds what
// it held before, or that and one whole checkpoint more.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/checkpoint/safetensors.h"
#include "lib/files/json.h"

namespace moe {

std::string checkpoint_name(std::int64_t step);  // "checkpoint-00001200"

class CheckpointWriter {
 public:
  // Makes the hidden folder, and removes those that dead writers left. One writer at a time: hold a
  // RunLock.
  CheckpointWriter(std::filesystem::path run, std::int64_t step);
  // A checkpoint of step 0 that stands alone, under the name `folder`, which must not exist.
  static CheckpointWriter alone(const std::filesystem::path& folder);
  CheckpointWriter(const CheckpointWriter&) = delete;
  ~CheckpointWriter();  // without finish(): what was written is removed

  void text(const std::string& name, std::string_view);
  void json(const std::string& name, const Json&);
  void tensors(const std::string& name, std::span<const NamedTensor>);  // one file
  // The bytes of another file, under a name that may be in folders: "tower/model.safetensors".
  void copy(const std::string& name, const std::filesystem::path& from);
  // model.safetensors, or shards and their index
  void model(std::span<const NamedTensor>, Index shard_bytes = 50'000'000'000);
  // Where other writers may put plain files before finish().
  const std::filesystem::path& folder() const {
    return temporary_;
  }
  // Manifest, syncs, rename; returns the final path. A checkpoint of the same step that is there
  // already is replaced in one exchange; one that would stand alone replaces nothing.
  std::filesystem::path finish();

 private:
  CheckpointWriter(std::filesystem::path parent, std::int64_t step, std::string alone);
  void record(const WrittenFile&);
  void replace(const std::filesystem::path& final_name);
  void adopt_others();
  std::filesystem::path run_, temporary_;
  std::string alone_;  // the name of a checkpoint outside a run
  std::int64_t step_;
  std::map<std::string, WrittenFile> files_;
  bool finished_ = false;
};

struct Checkpoint {
  std::filesystem::path path;
  std::int64_t step = -1;          // -1: a folder without manifest, from elsewhere
  std::vector<std::string> notes;  // newer ones that were skipped, each with the reason
};

// A checkpoint folder (ours, or a plain Hugging Face one without manifest), or a run folder: its
// newest checkpoint whose sizes and hashes are those of its manifest. Throws Error(input) where
// there is none, saying why each was refused.
Checkpoint find_checkpoint(const std::filesystem::path&);

// What is wrong with a checkpoint folder, as one sentence; empty if nothing is. Without `hashes`
// only sizes are compared.
std::string checkpoint_problem(const std::filesystem::path&, bool hashes = true);

// Steps of all checkpoint-* folders of a run, newest first; nothing is verified.
std::vector<std::int64_t> checkpoint_steps(const std::filesystem::path& run);

// Removes what dead writers left of checkpoints that they did not finish. Hold a RunLock.
void remove_unfinished_checkpoints(const std::filesystem::path& run);

// Removes all but the newest `keep` checkpoints, but never the newest valid one. `trusted`: one
// just written here, which needs no second reading and stays. Returns what was removed.
std::vector<std::filesystem::path> prune(const std::filesystem::path& run, int keep,
                                         const std::filesystem::path& trusted = {});

}  // namespace moe
