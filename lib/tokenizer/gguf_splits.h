// How the tokenizers of GGUF files cut a text before their merges: the names of
// `tokenizer.ggml.pre` and the split each one stands for.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace moe {

// What a name of `tokenizer.ggml.pre` says beside the split.
struct GgufSplit {
  bool whole_first = false;  // a word that is a token is taken at once (ignore_merges)
  bool add_bos = false;      // where add_bos_token is missing
};

// The field `pre_tokenizer` of a tokenizer.json with the same split. Throws Error(input), naming
// `source`, for a name that is not known.
nlohmann::json gguf_pre_tokenizer(std::string_view name, std::string_view source, GgufSplit&);
// The first name that stands for the same split; "" = none does.
std::string gguf_split_name(const nlohmann::json& pre_tokenizer, bool whole_first);

}  // namespace moe
