// Makes the file of a new trace: groups, attributes, constant data, empty datasets and dimension
// scales, all before the first row, because nothing of the structure may change once readers can
// look in.
#pragma once
#include <filesystem>
#include <map>

#include "lib/trace/columns.h"

namespace moe {

struct CommitRow {  // /commits, as it lies in the file
  std::uint64_t rows = 0;
  std::int64_t step = -1;
  std::uint64_t data_xxh3 = 0, prev_xxh3 = 0;
};
static_assert(sizeof(CommitRow) == 32);

struct TraceFile {  // a file open for writing
  h5::Handle file;
  std::vector<h5::Handle> columns;  // beside columns_of()
  h5::Handle token;                 // the scale that only has a length
  // /sequences/*, /steps/*, /commits; /experts/NAME
  std::map<std::string, h5::Handle> records, pairs;
};

h5::Handle commit_type();
// 0 = no filters
TraceFile create_trace(const std::filesystem::path&, const TraceHeader&,
                       const std::vector<TraceColumn>&, int deflate);
void write_pair(hid_t dataset, const PairMatrix&, const TraceHeader&);  // absent layers become NaN

}  // namespace moe
