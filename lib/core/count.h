// Counts as people write them: 4096, or 32Ki for 32 times 1024. 32k is refused: it is 32,000 where
// tokens are counted and 32,768 where vocabularies and contexts are named.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace moe {

struct Count {
  std::int64_t value = 0;
  // what is wrong, as the end of a sentence: "is not a whole number"; "" = right
  std::string wrong;
};
// Of the whole text: no blanks, 0x or 1e3; one plus sign may stand in front.
Count read_count(std::string_view text);

}  // namespace moe
