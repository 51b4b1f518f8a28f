// The rows of a trace that are exported, a window at a time: padding, rows that no router can have
// made and what was not asked for are passed over. One pass beforehand counts them, so that shapes
// are known before the first number is written.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "lib/export/export.h"
#include "lib/trace/reader.h"

namespace moe {

// What the first pass found in the rows that are kept.
struct ExportSurvey {
  std::uint64_t tokens = 0, padding = 0, repeated = 0 /*one expert in several slots*/;
  std::vector<std::uint64_t> lengths;  // rows of each sequence that has some
  std::vector<std::uint16_t> domains;  // of each of those
  bool token_ids = false, dropped = false, rerouted = false, flags = false, phases = false;
  bool gaps = false;           // some slot has no expert
  bool unweighed = false;      // some expert has no weight (NaN)
  std::vector<Index> choices;  // (L) slots of a token
  bool grids = false;          // of pictures
  bool positions = false;      // not 0, 1, 2, ... in every sequence
};

class ExportRows {
 public:
  // Throws Error(usage) where `options` name a sequence, label or phase that the trace lacks.
  ExportRows(const TraceReader&, const ExportOptions&, std::function<void(std::uint64_t)> read);

  const TraceHeader& header() const {
    return reader_.header();
  }
  const TraceFields& fields() const {
    return reader_.fields();
  }
  const TraceReader& reader() const {
    return reader_;
  }
  const ExportSurvey& survey() const {
    return survey_;
  }
  bool has_weights() const {
    return fields().weights && !survey_.unweighed;
  }
  std::string label(std::uint16_t domain) const;  // "" = none
  // of a row where the trace knows modalities; "" = not known
  std::string modality(const TraceRows&, std::size_t row) const;
  Phase phase(const TraceRows&, std::size_t row) const;
  // Calls take(rows) for each window of kept rows, in order; a window has some. Weights and drops
  // only where asked for.
  void each(bool weights, bool dropped, const std::function<void(const TraceRows&)>& take);
  // A sentence for the person, said once.
  void say(const std::string& sentence);
  const std::vector<std::string>& said() const {
    return said_;
  }
  // Error(input): "'a.moetrace.h5' WHY"
  [[noreturn]] void refuse(const std::string& why, const std::string& hint) const;
  void name(std::string quoted) {
    name_ = std::move(quoted);
  }

 private:
  void check_options() const;
  void look(const TraceRows& kept);
  std::vector<Index> kept_rows(const TraceRows&);
  void windows(const TraceFields& wanted, const std::function<void(const TraceRows&)>& take);

  const TraceReader& reader_;
  ExportOptions options_;
  std::function<void(std::uint64_t)> read_;
  ExportSurvey survey_;
  std::vector<std::string> said_;
  std::string name_ = "the trace";
  std::uint64_t done_ = 0, last_sequence_ = UINT64_MAX;
  std::uint32_t next_position_ = 0;
  bool surveying_ = true;
};

// The name of a phase as options and files write it.
const char* phase_name(Phase);

}  // namespace moe
