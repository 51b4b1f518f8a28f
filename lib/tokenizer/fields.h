// Fields of the objects of a tokenizer file: each is there and of its type, or one sentence names
// the file, the object and the field.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

class Fields {
 public:
  // `what`: the object as a person calls it, "the normalizer Replace"
  Fields(const nlohmann::json& object, std::string_view source, std::string what);

  bool has(const char* name) const;  // there and not null
  // The value of a field that must be there, or of one that may be absent or null.
  const nlohmann::json& at(const char* name) const;
  std::string text(const char* name) const;
  std::string text(const char* name, const std::string& otherwise) const;
  bool flag(const char* name, bool otherwise) const;
  std::int64_t whole(const char* name) const;  // 0 .. 2^31 - 1
  std::int64_t whole(const char* name, std::int64_t otherwise) const;
  const nlohmann::json& list(const char* name) const;
  // "'FILE': the normalizer Replace WHY"
  Error error(std::string_view why) const;
  const nlohmann::json& object() const {
    return object_;
  }
  std::string_view source() const {
    return source_;
  }

 private:
  const nlohmann::json& object_;
  std::string_view source_;
  std::string what_;
};

// The field `type` of a stage, and the stage as Fields: "the normalizer Replace".
std::string stage_type(const nlohmann::json&, std::string_view source, std::string_view stage);
Fields stage_fields(const nlohmann::json&, std::string_view source, std::string_view stage);
// "'FILE': the normalizer X is not one that we have"
Error no_such_stage(std::string_view source, std::string_view stage, std::string_view type,
                    std::string_view known);
// What a list of (type, reader) has for a type; throws no_such_stage() with `known` and the types
// of the list.
template <class Types>
auto of_type(const Types& types, std::string_view type, std::string_view source,
             std::string_view stage, std::vector<std::string> known = {}) {
  for (const auto& [name, read] : types) {
    if (name == type)
      return read;
    known.emplace_back(name);
  }
  throw no_such_stage(source, stage, type, join(known));
}

}  // namespace moe
