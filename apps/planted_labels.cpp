#include "apps/planted_labels.h"

#include <algorithm>
#include <numeric>

#include "datasets/dataset.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

std::vector<int> planted_labels(const std::string& data_spec, std::uint32_t vocabulary) {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({data_spec}, *tokenizer, 0);
  Batch every;
  every.token.resize(std::min<std::size_t>(vocabulary ? vocabulary : 65536, 1 << 20));
  std::iota(every.token.begin(), every.token.end(), 0);
  every.start = {0, Index(every.token.size())};
  every.domain = {0};
  std::vector<int> out = corpus.planted_labels(every);
  if (out.empty()) {
    throw Error(Exit::usage, concat("nothing was planted in '", data_spec, "'"))
        .hint("--planted-labels is for data whose tokens have known clusters: clusters:clusters=8");
  }
  return out;
}

}  // namespace moe
