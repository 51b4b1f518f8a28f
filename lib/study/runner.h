// Runs what a study lacks. Every arm and seed has a folder; what is finished is written there after
// each command, so that a study that was killed goes on where it was, and training goes on from its
// checkpoint. A command that fails is a result of its arm, and no end of the study.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/core/view.h"
#include "lib/study/study.h"
#include "lib/study/units.h"

namespace moe {

struct UnitState {
  enum class Status { missing, running, done, failed } status = Status::missing;
  std::vector<Words> commands;  // those it was run with
  int finished = 0;             // of them
  double seconds = 0;           // by the clock, over all of them
  double cpu_seconds = 0;       // of all threads
  Index peak_bytes = 0;         // the largest of them
  std::string why;              // it failed, in one sentence
};
UnitState read_state_of(const Unit&);  // of its folder; throws Error(input) for a damaged file

struct StudyRunOptions {
  std::string program;  // to run: this one
  int jobs = 1;
  double budget = 0;   // seconds; 0 = no limit
  bool force = false;  // run again what was run with other commands
  bool retry = false;  // run again what failed
};

class StudyObserver {
 public:
  virtual ~StudyObserver() = default;
  virtual void planned(int units, int left);
  virtual void started(const Unit&, const Words&);
  virtual void finished(const Unit&, const UnitState&);
  virtual void timing(int round, int rounds);
  virtual bool wants_stop();
};

struct StudyProgress {
  int units = 0, done = 0, failed = 0;
  int rounds = 0;  // of timing that are whole
  bool stopped = false, out_of_time = false;
};
// Throws Error(usage) where a unit was run with other commands than the study now has. The caller
// holds the lock of the folder.
StudyProgress run_study(const Study&, const std::filesystem::path& folder, const StudyRunOptions&,
                        StudyObserver&);

// Runs one unit to its end, on its own: for a probe.
UnitState run_unit(const Unit&, const std::string& program, StudyObserver&);

}  // namespace moe
