// One writer a run folder. The lock is the kernel's (flock), so it ends with its process however
// that ends; the file `lock` only says who holds it. A file left by a dead process is taken over;
// one left by another machine is not, since that cannot be known from here.
#pragma once
#include <filesystem>

namespace moe {

class RunLock {
 public:
  // makes the folder; throws Error(io) naming the holder
  explicit RunLock(const std::filesystem::path& run);
  RunLock(RunLock&&) noexcept;
  RunLock& operator=(RunLock&&) = delete;
  ~RunLock();  // removes the file
  const std::filesystem::path& run() const {
    return run_;
  }

 private:
  std::filesystem::path run_;
  int file_ = -1;
};

}  // namespace moe
