// What is put around the ids of a document, and how offsets lose their blanks: the
// `post_processor` of a tokenizer.json.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

namespace moe {

struct PostProcessor {
  std::vector<int> before, after;
  // One entry for each step that takes blanks off the offsets of tokens: whether the first blank of
  // a text stays, since add_prefix_space put it there.
  std::vector<bool> trims;
};

// From the value of the key `post_processor`. Throws Error(input), naming `source`, for a type that
// we do not have.
PostProcessor read_post_processor(const nlohmann::json&, std::string_view source);

}  // namespace moe
