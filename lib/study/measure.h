// A number of one arm and seed, read from what its commands left: a run folder, a report, any
// result as JSON. A metric id of docs/metrics.md is a measure as well: load_cv:layers=most.
#pragma once
#include <filesystem>
#include <string>

#include "lib/core/registry.h"

namespace moe {

class Spec;

// How numbers of several layers (or experts, or rows) become one.
enum class Reduce { mean, most, least, first, last };

class Measure {
 public:
  // Throws Error(usage) for a name that is neither of measures.def nor a metric, and for options
  // that it has not.
  explicit Measure(const std::string& spec);

  const std::string& name() const {
    return name_;
  }
  const std::string& title() const {
    return title_;
  }
  const std::string& unit() const {
    return unit_;
  }
  bool is_time() const;       // of the interleaved rounds, not of the seeds
  bool needs_report() const;  // of a trace of the arm's run

  // Of a folder with what the arm left; NaN where it left no such file. Throws Error(input) for
  // files that are not what they should be, and Error(usage) for a table, column or domain that is
  // not there, naming those that are.
  double value(const std::filesystem::path& folder) const;

 private:
  // Whether the spec names a measure of that kind, which this then is.
  bool is_of_losses(Spec&);
  bool is_of_run(Spec&);
  bool is_of_probes(Spec&);
  bool is_of_tables(Spec&);
  std::filesystem::path source(const std::filesystem::path& folder) const;

  enum class Kind {
    loss,
    train_loss,
    steps_to_loss,
    loss_spikes,
    log,
    noise_scale,
    time_share,
    run_number,
    memory,
    time,
    cell,
    metric
  } kind_ = Kind::loss;
  std::string name_, title_, unit_;
  std::string run_ = "run", domain_, figure_, file_, table_, column_, row_;
  Reduce layers_ = Reduce::mean, experts_ = Reduce::mean;
  int last_ = 1;
  double at_ = 0;
  bool by_expert_ = false;
};

using MeasureName = void();
const Registry<MeasureName>& measures();  // measures.def

inline constexpr const char* report_file = "report.json";  // of a unit, for metric ids
inline constexpr const char* unit_file = "unit.json";      // what running it took
inline constexpr const char* timing_file = "timing.json";  // of a round

}  // namespace moe
