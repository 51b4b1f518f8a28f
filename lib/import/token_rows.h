// Rows that come token by token with everything that is known of each, as moe export writes them in
// csv and jsonl: gathered into blocks of one sequence.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "lib/import/sink.h"

namespace moe {

struct TokenRow {
  std::int64_t sequence = 0, position = 0, token_id = -1;
  std::uint8_t flags = 0;
  std::string domain, where;
  std::string modality = {};  // "" = not known
  struct Slots {
    std::vector<int> ids;
    std::vector<float> weights;         // may be empty
    std::vector<std::uint8_t> dropped;  // may be empty
  };
  std::map<int, Slots> layers;  // by absolute number
};

// The mark of a row of this phase (prefill, decode, train, eval); -1 for another word.
int flags_of_phase(std::string_view phase);

class TokenRows {
 public:
  explicit TokenRows(ImportSink& sink) : sink_(sink) {}
  // Throws Error(input) where a sequence that ended goes on, numbers are out of range, or some
  // choices have weights and others none.
  void add(TokenRow&&);
  void flush();  // at the end of a file

 private:
  void check_weights(const TokenRow&);
  void begin(const TokenRow&);
  void fill(LayerRows&, int layer) const;

  ImportSink& sink_;
  std::vector<TokenRow> rows_;
  std::int64_t sequence_ = -1;
  std::string domain_;
  bool begun_ = false, known_ = false, weighed_ = false;
};

}  // namespace moe
