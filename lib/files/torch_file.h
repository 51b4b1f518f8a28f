// Files of torch.save since PyTorch 1.6: a zip with a pickle and one entry a storage. Executes
// nothing; older files and plain pickles are refused by what they are.
#pragma once
#include <filesystem>

#include "lib/files/pickle.h"

namespace moe {

class TorchFile {
 public:
  explicit TorchFile(const std::filesystem::path&);  // throws Error(input) in one sentence
  PickleValue root() const {
    return root_of(*tree_);
  }

 private:
  std::shared_ptr<const PickleTree> tree_;
};

// Whether the first bytes of a file are those of a pickle without a zip around it.
bool is_bare_pickle(std::string_view first_bytes);

}  // namespace moe
