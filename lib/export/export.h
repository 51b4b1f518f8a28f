// A trace as a file that other programs take. One file a format (exporters.def) writes the rows;
// what holds for all of them (which rows, what is left out, files that are whole or absent) is
// decided in export.cpp and rows.h.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/core/registry.h"
#include "lib/trace/trace.h"

namespace moe {

class ExportRows;
class OutputFile;

struct ExportOptions {
  std::string to;              // a format of exporters.def
  std::int64_t sequence = -1;  // this sequence alone, counted from 0; -1 = all
  std::string domain;          // sequences of this label alone; "" = all
  std::string phase;           // rows of prefill, decode, train or eval alone; "" = all
};

// What a format has a place for. What a trace holds beyond it is left out, and said.
struct ExportCarries {
  bool rows = true;  // false: counts of tokens per expert alone
  bool weights = false, order = false, dropped = false, token_ids = false, sequences = false,
       domains = false, positions = false, phases = false, modalities = false;
  bool layer_numbers = false, experts = false;  // absolute numbers of MoE layers; E of each
};

class Exporter {
 public:
  virtual ~Exporter() = default;
  virtual ExportCarries carries() const = 0;
  // Writes everything. Throws Error(input) in one sentence for what the format cannot express.
  virtual void write(ExportRows&, OutputFile&) const = 0;
};

using MakeExporter = std::unique_ptr<Exporter>();
const Registry<MakeExporter>& exporters();

struct ExportResult {
  std::vector<std::string> said;  // one sentence each: what is left out or taken apart
  std::uint64_t tokens = 0, sequences = 0;
  std::size_t layers = 0;
};

// Writes `target` whole, or not at all, a window of rows at a time. `wrote` hears how many rows
// were read of how many, all passes together. Throws Error(input) for a trace that cannot be
// exported so, Error(usage) for a choice of rows that there is none of.
ExportResult export_trace(const std::filesystem::path& trace, const ExportOptions&,
                          const std::filesystem::path& target, bool force,
                          const std::function<void(std::uint64_t)>& wrote = {});

}  // namespace moe
