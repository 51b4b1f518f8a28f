// One line of a JSON lines file as a document of ids: [1, 2, 3], or an object as tokenizers of
// transformers write it, every key used as it means or refused by name.
//
//   input_ids             the ids
//   domain                text: the domain of the line
//   attention_mask        0 = padding: flagged, without loss, behind the ids of its piece
//   labels                input_ids, or -100 for an id that is not to be predicted
//   position_ids          0, 1, 2, ... over what is not padding; anything else is refused
//   document              one text or number, the same for the whole line
//   token_type_ids        all 0
// Further text, numbers and flags (id, source, length) say nothing about ids and are let pass; any
// other list or object is refused.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "datasets/ids.h"

namespace moe {

class JsonLineReader;

// Numbers of one file, compared with the vocabulary.
struct IdCheck {
  const std::filesystem::path& path;
  Index vocabulary;  // 0 = any id below 2^31 - 1

  [[noreturn]] void refuse(const std::string& why, const std::string& hint) const;
  [[noreturn]] void wrong_id(const std::string& id, const std::string& where) const;
  bool fits(std::int64_t id) const;
};

// Throws Error(input) naming file, line and key.
IdDocument id_document(const JsonLineReader&, const nlohmann::json& line, const IdCheck&);

}  // namespace moe
