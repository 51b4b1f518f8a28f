// A tokenizer as the keys `tokenizer.ggml.*` of GGUF have it, for whoever writes such a file.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/tokenizer/tokenizer.h"

namespace moe {

struct GgufTokenizer {
  // "gpt2": byte-level BPE; of sentencepiece "llama": byte pairs, "t5": Unigram
  std::string model;
  std::string pre;  // of gpt2: the name of the split
  std::vector<std::string> tokens, merges;
  std::vector<int> types;     // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
  std::vector<float> scores;  // of llama and t5
  SpecialIds ids;
  bool add_bos = false, add_eos = false;
  bool space_prefix = true;          // of llama and t5
  bool remove_extra_blanks = false;  // of t5
  std::string charsmap;              // of t5: "precompiled_charsmap"; may be empty
};

// `folder`: where the tokenizer's files lie. Throws Error(input), a sentence on what GGUF has no
// words for.
GgufTokenizer gguf_tokenizer(const Tokenizer&, const std::filesystem::path& folder);

}  // namespace moe
