// How a normalized text is cut into the pieces that the model takes one by one: the `pre_tokenizer`
// of a tokenizer.json.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tokenizer/aligned.h"

namespace moe {

using Spans = std::vector<ByteRange>;

// CutText of one stretch between added tokens.
struct CutText {
  Aligned text;
  Spans spans;        // of `text`, in order
  bool first = true;  // the stretch starts where the text does
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Whether it leaves the text as it is; then only cut() is needed.
  virtual bool cuts_only() const {
    return true;
  }
  // Cuts each of the spans; what is dropped is left out.
  virtual void cut(std::string_view text, Spans& spans) const = 0;
  virtual void apply(CutText& p) const {
    cut(p.text.text(), p.spans);
  }
  // Whether apply() asks where pieces came from.
  virtual bool needs_origin() const {
    return false;
  }
};

struct PreTokenizerPlan {
  std::unique_ptr<PreTokenizer> steps;  // nothing: the stretch is one piece
  // The last step turns bytes into letters, and is left out: the model takes bytes.
  bool bytes = false;
};

// From the value of the key `pre_tokenizer`. `take_bytes`: the model can do without letters. Throws
// Error(input), naming `source`, for a type that we do not have.
PreTokenizerPlan read_pre_tokenizer(const nlohmann::json&, std::string_view source,
                                    bool take_bytes);

// Split by a known or any other pattern, each match and each gap a piece; `drop_gaps` as tiktoken.
std::unique_ptr<PreTokenizer> make_split(std::string_view expression, std::string_view source,
                                         bool drop_gaps);

}  // namespace moe
