// Token ids from a file, where no tokenizer of ours made them: NumPy arrays, text, JSON lines. What
// is read is one document after the other, each of one domain; an id that is no id of the
// vocabulary is refused with the place where it stands.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lib/core/view.h"

namespace moe {

enum class IdFormat { npy, text, jsonl };

struct IdDocument {
  std::string domain;  // "" = the file's
  std::vector<int> ids;
  std::vector<std::uint8_t> marks;  // a token_mark (stream.h) of each id; empty = none has any
};
// Calls `each` for every document: a row of a NumPy array (all of it where it has one dimension),
// the whole of a text, a line of JSON (json_ids.h). vocabulary 0 = any id below 2^31 - 1. Throws
// Error(input) or Error(io).
void read_ids(const std::filesystem::path&, IdFormat, Index vocabulary,
              const std::function<void(IdDocument&&)>& each);

}  // namespace moe
