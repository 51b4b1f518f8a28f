// Records of Megatron's RouterTracer and what becomes of them: passes of all layers, stages of a
// pipeline put together, rows of a micro-batch put sequence by sequence, order and weights from the
// logits where they were recorded.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/files/file.h"
#include "lib/import/inputs.h"
#include "lib/import/sink.h"

namespace moe {

struct MegatronRecord {
  std::int64_t step = 0;
  std::string block, where;
  int layer = 0, rank = 0;
  Index rows = 0, topk = 0;
  std::vector<std::int32_t> ids;  // (rows, topk)
  Index logit_offset = -1, logit_bytes = 0;
  std::vector<std::int32_t> logit_shape;
};
// Throws Error(input) beginning with `where`.
MegatronRecord read_megatron_record(std::string_view line, const std::string& where);

struct MegatronPass {  // one micro-batch: records of different layers, ascending
  std::vector<MegatronRecord> records;
};

class MegatronPasses {
 public:
  MegatronPasses(const ImportInputs&, ImportSink&);
  // by_rank[rank][stage]: the passes of that rank in this step.
  void step(std::int64_t step, std::map<int, std::vector<std::vector<MegatronPass>>>& by_rank);
  void done();

 private:
  struct State {  // of one layer's router
    bool sigmoid = false;
    std::vector<float> bias;
  };
  void emit(int rank, const std::vector<const MegatronPass*>& stages);
  void add_sequences(ImportBlock&&, int rank);
  int stage_offset(std::size_t stage) const;
  void fill(LayerRows&, const MegatronRecord&);
  bool order_by_logits(LayerRows&, const MegatronRecord&);
  void order_row(LayerRows&, const MegatronRecord&, const State&, Index row,
                 std::span<const float> logits) const;
  const State* state_of(int rank, int layer);
  std::span<const std::byte> logits_of(const MegatronRecord&);

  const ImportInputs& in_;
  ImportSink& sink_;
  std::map<std::string, const ImportFile*> by_name_;
  std::map<std::pair<int, int>, State> states_;
  std::map<int, bool> states_read_;
  std::map<int, std::shared_ptr<const std::byte>> sidecars_;
  std::map<int, Index> sidecar_size_;
  std::map<int, bool> layers_seen_;
  bool rising_ = true, derived_ = true;
};

}  // namespace moe
