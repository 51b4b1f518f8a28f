// Dumps of one line a token and layer (or a choice): rows of a forward pass are gathered until its
// layers begin again, so that one pass is in memory, whether its lines come token by token or layer
// by layer.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "lib/import/sink.h"

namespace moe {

struct GatheredRow {
  std::int64_t token = 0;  // position in its sequence
  int layer = 0;
  std::uint8_t flags = 0;
  std::vector<int> ids;
  std::vector<float> weights;         // may be empty
  std::vector<std::uint8_t> dropped;  // may be empty
  std::string where;
};

class PassGather {
 public:
  // last_may_lack: llama.cpp computes the last layer of a prompt only for the tokens whose logits
  // are asked for; what it lacks there is "no expert"
  PassGather(ImportSink& sink, bool last_may_lack) : sink_(sink), last_may_lack_(last_may_lack) {}
  void add(GatheredRow&&);  // throws Error(input) where a token has two rows of a layer
  void flush();             // at the end of a sequence, and of the file

 private:
  struct Layer {
    std::map<std::int64_t, GatheredRow> rows;
  };
  void check() const;
  void fill(LayerRows&, const Layer&, Index choices) const;

  ImportSink& sink_;
  bool last_may_lack_;
  int layer_ = -1;
  std::map<int, Layer> layers_;
  std::vector<std::int64_t> order_;  // of the tokens in the first layer
};

}  // namespace moe
