#include "lib/tokenizer/tokenizer.h"

namespace moe {

std::vector<int> document_opening(const Tokenizer& tokenizer) {
  const int bos = tokenizer.special().bos;
  const std::vector<int> frame = tokenizer.encode("", {.frame = true}).ids;
  if (bos >= 0 && !frame.empty() && frame.front() == bos)
    return {bos};
  if (tokenizer.boundary() >= 0)
    return {tokenizer.boundary()};
  return {};
}

}  // namespace moe
