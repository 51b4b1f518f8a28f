#include "lib/tokenizer/fields.h"

#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {

using Json = nlohmann::json;

Fields::Fields(const Json& object, std::string_view source, std::string what)
    : object_(object), source_(source), what_(std::move(what)) {
  if (!object.is_object())
    throw error("is no JSON object");
}

Error Fields::error(std::string_view why) const {
  return Error(Exit::input, concat(in_quotes(source_), ": ", what_, " ", why))
      .hint("fetch the file again, or export it with a current version of tokenizers");
}

bool Fields::has(const char* name) const {
  const auto found = object_.find(name);
  return found != object_.end() && !found->is_null();
}

const Json& Fields::at(const char* name) const {
  if (!has(name))
    throw error(concat("has no field '", name, "'"));
  return *object_.find(name);
}

std::string Fields::text(const char* name) const {
  const Json& value = at(name);
  if (!value.is_string())
    throw error(concat("has a field '", name, "' that is no text"));
  return value.get<std::string>();
}

std::string Fields::text(const char* name, const std::string& otherwise) const {
  return has(name) ? text(name) : otherwise;
}

bool Fields::flag(const char* name, bool otherwise) const {
  if (!has(name))
    return otherwise;
  if (!at(name).is_boolean())
    throw error(concat("has a field '", name, "' that is neither true nor false"));
  return at(name).get<bool>();
}

std::int64_t Fields::whole(const char* name) const {
  const Json& value = at(name);
  const bool fits = value.is_number_integer() &&
                    (value.is_number_unsigned() ? value.get<std::uint64_t>() < (1u << 31)
                                                : value.get<std::int64_t>() >= 0 &&
                                                      value.get<std::int64_t>() < (1ll << 31));
  if (!fits)
    throw error(concat("has a field '", name, "' that is no whole number from 0 to 2147483647"));
  return value.get<std::int64_t>();
}

std::int64_t Fields::whole(const char* name, std::int64_t otherwise) const {
  return has(name) ? whole(name) : otherwise;
}

const Json& Fields::list(const char* name) const {
  if (!at(name).is_array())
    throw error(concat("has a field '", name, "' that is no list"));
  return at(name);
}

std::string stage_type(const Json& object, std::string_view source, std::string_view stage) {
  return Fields(object, source, concat("the ", stage)).text("type");
}

Fields stage_fields(const Json& object, std::string_view source, std::string_view stage) {
  return {object, source, concat("the ", stage, " ", stage_type(object, source, stage))};
}

Error no_such_stage(std::string_view source, std::string_view stage, std::string_view type,
                    std::string_view known) {
  return Error(Exit::input, concat(in_quotes(source), " asks for the ", stage, " ", in_quotes(type),
                                   ", which is not one that is read"))
      .hint(concat("what is read: ", known));
}

}  // namespace moe
