// What a scanner is: a pattern known by its exact text and followed by hand.
#pragma once
#include <memory>
#include <span>
#include <string_view>

#include "lib/tokenizer/pattern.h"

namespace moe {

struct KnownPattern {
  std::string_view name, expression;
  std::unique_ptr<SplitPattern> (*make)();
};
// A pattern may stand here more than once, as different files write it.
std::span<const KnownPattern> known_patterns();

}  // namespace moe
