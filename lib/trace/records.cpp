#include "lib/trace/records.h"

#include <fmt/format.h>

#include <cstring>

namespace moe {
namespace {
using h5::Cell;
using Datasets = std::map<std::string, h5::Handle>;

// Appends one number of each record to the dataset at `path`, which has `from` already.
template <class Record, class Get>
void write_column(const Datasets& datasets, const char* path, Cell cell, std::size_t from,
                  const std::vector<Record>& records, Get get) {
  if (records.empty())
    return;
  std::vector<std::uint8_t> cells(records.size() * h5::bytes_of(cell));
  for (std::size_t i = 0; i < records.size(); ++i) {
    const auto value = get(records[i]);
    std::memcpy(cells.data() + i * sizeof value, &value, sizeof value);
  }
  const hid_t d = datasets.at(path);
  h5::resize(d, {from + records.size()}, path);
  h5::write_rows(d, h5::type_of(cell), from, records.size(), cells.data(), path);
  h5::must(H5Dflush(d), fmt::format("flush {}", path));
}

}  // namespace

void write_records(const Datasets& datasets, std::size_t n, const std::vector<TraceStep>& steps,
                   std::size_t q, const std::vector<TraceSequence>& sequences) {
  write_column(datasets, "/sequences/start", Cell::u64, q, sequences,
               [](const TraceSequence& s) { return s.start; });
  write_column(datasets, "/sequences/length", Cell::u32, q, sequences,
               [](const TraceSequence& s) { return s.length; });
  write_column(datasets, "/sequences/domain", Cell::u16, q, sequences,
               [](const TraceSequence& s) { return s.domain; });
  if (datasets.contains("/sequences/grid_rows")) {
    write_column(datasets, "/sequences/grid_rows", Cell::u16, q, sequences,
                 [](const TraceSequence& s) { return s.grid.rows; });
    write_column(datasets, "/sequences/grid_columns", Cell::u16, q, sequences,
                 [](const TraceSequence& s) { return s.grid.columns; });
  }
  write_column(datasets, "/steps/step", Cell::i64, n, steps,
               [](const TraceStep& s) { return s.step; });
  write_column(datasets, "/steps/token_start", Cell::u64, n, steps,
               [](const TraceStep& s) { return s.token_start; });
  write_column(datasets, "/steps/num_tokens", Cell::u32, n, steps,
               [](const TraceStep& s) { return s.num_tokens; });
  write_column(datasets, "/steps/phase", Cell::u8, n, steps,
               [](const TraceStep& s) { return s.phase; });
}

}  // namespace moe
