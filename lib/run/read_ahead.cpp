#include "lib/run/read_ahead.h"

#include <atomic>
#include <optional>

#include "lib/core/parallel.h"
#include "lib/files/file.h"

namespace moe {
namespace {

class OnThread final : public ReadAhead {
 public:
  ~OnThread() override {
    ending_ = true;
  }
  void ask(std::vector<std::span<const std::byte>> bytes) override {
    if (!worker_)
      worker_.emplace();
    worker_->give([this, bytes = std::move(bytes)] {
      for (const auto& part : bytes) {
        if (!ending_)
          want_pages(part);
      }
    });
  }

  void forget(std::span<const std::span<const std::byte>> bytes) override {
    for (const auto& part : bytes)
      forget_pages(part);
  }

 private:
  std::atomic<bool> ending_ = false;
  std::optional<Worker> worker_;  // the last member: it ends before what it looks at goes
};

}  // namespace

std::unique_ptr<ReadAhead> make_read_ahead() {
  return std::make_unique<OnThread>();
}

}  // namespace moe
