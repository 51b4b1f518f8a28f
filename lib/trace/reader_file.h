// The inside of TraceReader, shared with verify.cpp: the open datasets and how rows come out of
// them.
#pragma once
#include "lib/trace/columns.h"
#include "lib/trace/create.h"
#include "lib/trace/reader.h"
#include "lib/trace/schema.h"

namespace moe {

struct Source {  // one token-major dataset of the file
  TraceColumn column;
  DataInfo data;
  Index planes = 1;
  bool direct = false;  // its chunks are read raw and unpacked here, on threads
  // for /routing/logits of some rows only: which; empty = every token
  std::vector<std::uint64_t> tokens;
  std::uint64_t rows() const {
    return data.dims[0];
  }
};

struct PlanePiece {  // rows of one plane, as they lie in the file
  const Source* source = nullptr;
  Index plane = 0, count = 0, skip = 0;  // `count` rows behind the first `skip` of the bytes
  std::uint64_t first = 0;               // row
  bool packed = false;
  std::uint32_t skipped_filters = 0;
  std::vector<std::uint8_t> bytes;
};

struct TraceReader::File {
  std::filesystem::path path;
  Schema schema;
  TraceHeader header;
  TraceState state;
  TraceFields fields;
  std::vector<Source> sources;  // in path order
  std::vector<TraceSequence> sequences;
  std::vector<TraceStep> steps;
  std::vector<CommitRow> commits;
  bool has_sequences = false, has_steps = false;
  std::optional<DataInfo> counts;  // /counts/per_step
  std::uint64_t count_steps = 0;   // of its rows, those that have a step

  explicit File(const std::filesystem::path&);
  TraceRows read(std::uint64_t first, std::uint64_t count, const TraceFields& wanted) const;
  Matrix<std::uint32_t> read_counts(std::uint64_t first, std::uint64_t count) const;
  // what /commits should say of these rows
  std::uint64_t data_xxh3(std::uint64_t first, std::uint64_t count) const;
  void warn(std::string sentence) {
    state.warnings.push_back(std::move(sentence));
  }

 private:
  int minor_ = 0;  // of the format's version
  bool is_read(const Source&, const TraceFields& wanted) const;
  void read_header();
  void check_version();
  void read_model();
  void read_settings();
  void read_stacks();
  template <class T, class Put>
  void read_layers(const char* name, bool needed, h5::Cell, Put);
  void read_constants();
  void read_modalities();
  void check_constants();
  void read_router_rows();
  void read_pairs();
  void check_shape(const std::string& name, const std::vector<std::uint64_t>& dims);
  void read_commits();
  bool rows_are_stated() const;
  void read_end();
  void warn_if_unfinished();
  void open_columns();
  void open_column(TraceColumn);
  void check_id_width(const TraceColumn&, h5::Cell) const;
  void describe_columns();
  void open_logits_token(Source&);
  void settle_tokens();
  void check_last_commit();
  void read_records();
  void read_sequences();
  void read_steps();
  void open_counts();
  void check_counts(std::uint64_t first, const Matrix<std::uint32_t>&) const;
  std::vector<PlanePiece> collect(const Source&, std::uint64_t first, std::uint64_t count) const;
  void check_records(const TraceRows&) const;
  void read_some_logits(const Source&, TraceRows&) const;
  template <class Sink>
  void unpack_all(const std::vector<PlanePiece>&, Sink) const;
};

}  // namespace moe
