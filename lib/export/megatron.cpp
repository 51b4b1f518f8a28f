// Records as Megatron's RouterTracer writes them (megatron/core/transformer/moe/router_trace.py): a
// JSON line for each layer of each pass. A pass here is a sequence, so that its bounds survive.
#include "lib/core/text.h"
#include "lib/export/rows.h"
#include "lib/export/text.h"

namespace moe {
namespace {

constexpr Index most_cells = Index(1) << 24;  // ids of one pass in memory

class Megatron final : public Exporter {
 public:
  ExportCarries carries() const override {
    return {.order = true, .sequences = true, .layer_numbers = true};
  }
  void write(ExportRows&, OutputFile&) const override;
};

// The ids of one sequence, by layer, until it ends.
class Pass {
 public:
  Pass(ExportRows& rows, OutputFile& file) : rows_(rows), out_(file) {
    ids_.resize(rows.header().layers.size());
    Index row = 0;
    for (const Index k : rows.survey().choices)
      row += k;
    most_tokens_ = std::max<Index>(1, most_cells / std::max<Index>(row, 1));
  }
  void add(const TraceRows& r, std::size_t t) {
    const std::size_t sequence = number_.of(r, t);
    if (tokens_ > 0 && sequence != sequence_)
      flush();
    if (tokens_ == most_tokens_) {
      rows_.say(concat("sequences of more than ", most_tokens_,
                       " tokens are taken apart into passes of so many"));
      flush();
    }
    sequence_ = sequence;
    for (std::size_t l = 0; l < ids_.size(); ++l) {
      const auto row = r.layer[l].expert.row(Index(t));
      ids_[l].insert(ids_[l].end(), row.begin(), row.begin() + rows_.survey().choices[l]);
    }
    ++tokens_;
  }
  void flush();

 private:
  ExportRows& rows_;
  ExportText out_;
  SequenceNumber number_;
  std::vector<std::vector<int>> ids_;
  Index tokens_ = 0, most_tokens_ = 1, step_ = 0;
  std::size_t sequence_ = 0;
};

void Pass::flush() {
  for (std::size_t l = 0; tokens_ > 0 && l < ids_.size(); ++l) {
    const Index k = rows_.survey().choices[l];
    out_ << R"({"step": )" << step_ << R"(, "stage": "pre_dispatch", "block": "decoder", "layer": )"
         << rows_.header().layers[l].index << R"(, "rank": 0, "num_tokens": )" << tokens_
         << R"(, "topk": )" << k << R"(, "top_indices": [)";
    for (Index t = 0; t < tokens_; ++t) {
      out_ << (t > 0 ? ", [" : "[");
      for (Index i = 0; i < k; ++i) {
        if (i > 0)
          out_ << ", ";
        out_ << ids_[l][t * k + i];
      }
      out_ << ']';
    }
    out_ << "]}\n";
    out_.flush();
    ids_[l].clear();
  }
  step_ += tokens_ > 0;
  tokens_ = 0;
}

void Megatron::write(ExportRows& rows, OutputFile& file) const {
  for (std::size_t l = 0; l < rows.header().layers.size(); ++l) {
    if (rows.survey().choices[l] == 0)
      rows.refuse(concat("has a MoE layer without choices, number ", rows.header().layers[l].index),
                  "a trace in which every layer was routed");
  }
  if (rows.survey().gaps)
    rows.say("slots without an expert are -1");
  Pass pass(rows, file);
  rows.each(false, false, [&](const TraceRows& r) {
    for (std::size_t t = 0; t < r.tokens(); ++t)
      pass.add(r, t);
  });
  pass.flush();
}

}  // namespace

std::unique_ptr<Exporter> make_megatron_exporter() {
  return std::make_unique<Megatron>();
}

}  // namespace moe
