// The token-major datasets of the format as one list: what writer, reader, verify and recover agree
// on. A column has planes (one a layer, or a single one); the rows of a plane are `width` cells.
// encode and decode turn TraceRows into cells and back.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "lib/trace/h5.h"
#include "lib/trace/trace.h"

namespace moe {

constexpr Index commit_rows = 4096;  // a commit at least this often; the chunk length of /routing
constexpr Index token_chunk =
    4096;  // of /tokens: a commit writes whole chunks. With 65536, each chunk would be written 16
           // times, every time at a new place (space is never reused while readers may look)

enum class Field : std::uint8_t {  // in path order
  dropped,
  entropy,
  expert,
  kept,
  logits,
  logsumexp,
  margin,
  out_norm,
  predicted,
  weight,
  flags,
  logprob,
  modality,
  position,
  predicted_id,
  rank,
  sequence,
  step,
  target_id,
  token_id
};

struct TraceColumn {
  Field field;
  std::string path;
  h5::Cell cell;
  bool layered = true;
  Index width = 1;  // cells of a row in one plane
  int rank = 3;     // of the dataset: [T], [T,L], [T,L,width]
  Index chunk = commit_rows;
  Index choices = 0;  // K, for the bits of /routing/dropped

  std::size_t row_bytes() const {
    return std::size_t(width) * h5::bytes_of(cell);
  }
  bool is_id() const {
    return field == Field::expert || field == Field::kept || field == Field::predicted;
  }
};

// All columns that `fields` asks for, in path order, as this writer lays them out.
std::vector<TraceColumn> columns_of(const TraceHeader&, const TraceFields&);
bool asked(const TraceFields&, Field);
void set_asked(TraceFields&, Field);

// `count` rows from row `first` of one plane, as cells. Throws Error(bug) where the rows have
// another shape than the header says.
void encode(const TraceRows&, Index first, Index count, const TraceColumn&, const TraceLayer&,
            Index layer, std::uint8_t* out);

// Makes room for `count` rows in `out`, and fills rows at..at+count of it from cells. Throws
// Error(input) for ids out of range.
void prepare(TraceRows& out, Index count, const TraceColumn&, Index layer);
void decode(const std::uint8_t* cells, Index count, const TraceColumn&, const TraceLayer&,
            Index layer, TraceRows& out, Index at);

// Row-major bytes of rows of all planes, as h5py gives them: what data_xxh3 is taken over. plane(l)
// = first byte of plane l's rows.
std::vector<std::uint8_t> interleave(const std::vector<const std::uint8_t*>& planes, Index rows,
                                     std::size_t row_bytes);

}  // namespace moe
