// A router that takes its routes from a recording. It reads no file: recording() names the trace,
// and whoever opens the model brings its rows.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/core/matrix.h"

namespace moe {

// What one MoE layer did with a run of tokens, from a trace.
struct Recorded {
  std::string file;
  std::shared_ptr<const std::vector<std::uint32_t>> token;  // (N) ids, all layers the same
  Matrix<int> expert;                                       // (N,K)
  Matrix<float> weight;                                     // (N,K)
  // (N) in its sequence; null = not compared
  std::shared_ptr<const std::vector<std::uint32_t>> position = nullptr;
};

class ReplaysRoutes {
 public:
  virtual ~ReplaysRoutes() = default;
  virtual std::string recording() const = 0;  // the trace's path
  virtual void replay(Recorded) = 0;          // the rows to follow, from the first on
  virtual void rewind() = 0;                  // the same rows from the first on
};

// "replay:trace=a.h5" for a checkpoint whose router is `own`: the same with router={own} where none
// is given. Other specs stay.
std::string with_inner_router(const std::string& spec, const std::string& own);

}  // namespace moe
