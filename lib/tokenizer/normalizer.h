// What a tokenizer does to a text before it cuts it: the `normalizer` of a tokenizer.json.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "lib/tokenizer/aligned.h"

namespace moe {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(Aligned&) const = 0;
  // Whether a glance shows that this text stays as it is; false where it might not.
  virtual bool leaves(std::string_view) const {
    return false;
  }
};

// From the value of the key `normalizer`; nothing for null. Throws Error(input), naming `source`,
// for a type that we do not have and for fields that are not what they should be.
std::unique_ptr<Normalizer> read_normalizer(const nlohmann::json&, std::string_view source);

}  // namespace moe
