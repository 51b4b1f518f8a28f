// What an importer speaks to. On the first pass the sink looks: which layers have routes, how many
// experts and choices there are, what is there at all; every check that holds for all formats is
// made then. On the second pass it writes. An importer only says what its file says. What was said
// first is kept while it is small, and then nothing is read twice.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "lib/import/import.h"
#include "lib/trace/trace.h"
#include "lib/trace/writer.h"

namespace moe {

struct RecordedModel;

// What a file or its format promises; set on the first pass.
struct ImportFacts {
  std::string engine = "unknown", engine_version, model_id, capture_point = "logical";
  std::string order = "unknown";  // only what the format promises
  std::string weight_kind = "combine", logit_kind = "logits";
  bool weight_normalized = false, wide_weights = false, wide_logits = false;
  int experts = 0;  // 0 = the files do not say
  std::int64_t checkpoint_step = -1;
  TraceLayer layer;  // score_fn, norm_topk, routed_scale, ... of every layer
  std::map<int, std::uint64_t> expert_bytes;  // by layer
  std::map<int, int> topk;  // by layer, where it is known otherwise than from rows
  // the array has a slot a hidden layer: one that is expert 0 in every choice has no experts
  bool hidden_layers = false;
};

// Rows of several layers, a piece of one sequence.
struct ImportBlock {
  std::vector<int> layers;  // absolute numbers of rows.layer, each at most once
  // token_id, position, flags, rank, modality may be empty: withheld, counted from the start of
  // the sequence, none, none, unknown
  TraceRows rows;
  std::string where;      // where the rows stand in the file, for sentences
  Index rows_before = 0;  // rows of `where` before these
};

class ImportSink {
 public:
  ImportSink(const ImportOptions&, const RecordedModel*);
  ~ImportSink();

  ImportFacts facts;
  const ImportOptions& options() const {
    return options_;
  }
  // A sentence for the person; said once however often it is said here.
  void say(const std::string& sentence);
  void step(std::int64_t step, Phase phase = Phase::eval);
  void sequence(const std::string& domain = {});  // rows from now on are another sequence
  void rows(ImportBlock&&);
  // Its number in rows.modality, for names other than those of modality_names(), too; "" = unknown.
  std::uint8_t modality(const std::string& name);
  // Tokens per expert of one step, by layer; for files without token rows. A step that was named
  // before is added to. Throws Error(input) for counts that are negative or too large.
  void counts(std::int64_t step, int layer, const std::vector<std::int64_t>& per_expert,
              const std::string& where);
  // How many experts ids are checked against; 0 = not known before the end.
  int experts() const;

  // The trace that is appended to: labels keep their numbers, its experts are what ids are checked
  // against. Before the first pass.
  void continue_from(const TraceHeader&);
  // Between the passes: decides layers, experts, choices. Throws Error(input) where nothing was
  // found.
  void survey_done(const std::string& format);
  void write_to(const std::filesystem::path&, TraceHeader, bool force,
                std::function<void(std::uint64_t, std::uint64_t)> wrote);
  // In the place of the second pass, where all that the first one said was kept; else false.
  bool replay();
  ImportResult finish();

 private:
  struct Layer {
    std::int64_t most = -1;  // largest id
    Index choices = 0;       // columns that are used
    std::uint64_t rows = 0, zeros = 0, none = 0;
    std::string first_zero;  // where a row was expert 0 in every choice
  };
  struct Step {
    std::int64_t number;
    std::map<int, std::vector<std::int64_t>> counts;
  };
  struct SaidStep {
    std::int64_t number;
    Phase phase;
  };
  struct SaidSequence {
    std::string domain;
  };
  // A block whose ids lie in as few bytes as they need.
  struct SaidRows {
    explicit SaidRows(ImportBlock&&);
    ImportBlock block() &&;
    std::size_t bytes() const;

    ImportBlock rest;                             // without its ids
    std::vector<std::pair<Index, Index>> shapes;  // of the ids: rows, choices by layer
    std::vector<std::uint8_t> ids;
    int id_bytes = 1;
  };
  using Said = std::variant<SaidStep, SaidSequence, SaidRows>;
  void keep(Said, std::size_t bytes);
  void leave_out_padding(ImportBlock&);
  void look(const ImportBlock&);
  void look_at_layer(const ImportBlock&, std::size_t i);
  void look_at_odd_row(const ImportBlock&, std::size_t i, Index row, int limit, Layer&);
  void look_at_weights(const ImportBlock&, std::size_t i);
  void look_at_sums(const LayerRows&);
  void note_fields(const ImportBlock&);
  void complete(ImportBlock&);
  void write(ImportBlock&&);
  void decide_layers();
  void decide_experts();
  void decide_counts();
  std::map<int, std::size_t> leave_out_unused();
  bool without_experts(int layer, const Layer&);
  Matrix<std::uint32_t> count_matrix() const;
  std::uint16_t domain_number(const std::string&);

  ImportOptions options_;
  const RecordedModel* config_;
  bool writing_ = false;
  std::vector<Said> kept_;
  std::size_t kept_bytes_ = 0;
  bool keeping_ = true;
  std::map<int, Layer> found_;
  // by expert: the row in which it was seen last, all rows of all layers counted
  std::vector<std::uint64_t> seen_in_row_;
  std::uint64_t rows_looked_at_ = 0;
  std::vector<Step> count_steps_;
  std::map<std::int64_t, std::size_t> count_step_at_;
  std::size_t count_cells_ = 0;
  std::vector<std::string> said_, domains_, modalities_ = modality_names();
  std::set<std::string> known_sentences_;
  std::map<std::string, std::uint16_t> domain_numbers_;
  TraceFields fields_;
  bool token_ids_ = false, sums_to_one_ = true;
  std::uint64_t total_ = 0, padding_ = 0, sequences_ = 0, steps_ = 0;
  std::uint32_t position_ = 0;
  std::map<int, std::size_t> layer_at_;
  TraceHeader header_;
  std::unique_ptr<TraceWriter> writer_;
  std::function<void(std::uint64_t, std::uint64_t)> wrote_;
};

// A block of `rows` rows with empty ids for each of `layers`.
ImportBlock make_block(const std::vector<int>& layers, Index rows, Index choices,
                       std::string where);

}  // namespace moe
