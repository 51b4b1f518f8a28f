// The program run as another process: an arm that runs out of memory or dies takes nothing with it,
// and what it took is known to the kernel.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/core/view.h"

namespace moe {

struct Ended {
  int code = 0;            // its exit status; -signal where a signal ended it
  double seconds = 0;      // by the clock
  double cpu_seconds = 0;  // of all its threads
  Index peak_bytes = 0;    // largest resident memory
};

class Process {
 public:
  // Its output and errors are added to `log`. It dies with the one that started it. Throws
  // Error(io) where it cannot be started.
  Process(const std::string& program, const std::vector<std::string>& words,
          const std::filesystem::path& log,
          const std::vector<std::pair<std::string, std::string>>& environment);
  Process(Process&&) noexcept;
  Process& operator=(Process&&) = delete;
  ~Process();  // ends it at once where it still runs

  std::optional<Ended> ended();  // without waiting
  void ask_to_stop() const;      // SIGTERM: moe train saves and ends

 private:
  int pid_ = -1;
  double started_ = 0;
};

// Seconds of processor time that all processes together have used since the machine started.
double machine_cpu_seconds();
int machine_cores();
double clock_seconds();  // monotonic

}  // namespace moe
