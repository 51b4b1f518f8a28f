// Devices of ranks by NCCL: one exchange is one group of ncclSend and ncclRecv in the stream in
// which the rank computes. NCCL adds nothing here: it has no sum whose order the run fixes. A rank
// waits until its part is done, so that one that does not come, or an error on the way, is noticed.
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <time.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "lib/comm/grouped.h"
#include "lib/comm/module.h"
#include "lib/core/error.h"

namespace {

std::string sentence(cudaError_t status) {
  return std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
}

// Calls go on after they have returned (ncclInProgress).
bool good(ncclResult_t result) {
  return result == ncclSuccess || result == ncclInProgress;
}

class Watch {
 public:
  explicit Watch(double patience) : patience_(patience) {}
  // Waits a moment; false after the patience.
  bool pause() const {
    const double waited = std::chrono::duration<double>(Clock::now() - start_).count();
    if (waited > patience_)
      return false;
    const timespec nap{0, waited < 1e-3 ? 5'000 : 100'000};
    nanosleep(&nap, nullptr);
    return true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  double patience_;
  Clock::time_point start_ = Clock::now();
};

class Nccl final : public moe::Transport {
 public:
  explicit Nccl(const moe::DevicePlace& place)
      : place_(place), stream_(static_cast<cudaStream_t>(place.stream)) {}
  ~Nccl() override {
    give_up();
  }
  // Meets the others; false, and why, where that fails.
  bool meet(const std::string& key, std::string& why) {
    ncclUniqueId id;
    if (key.size() != sizeof(id)) {
      why = "the key that rank 0 made is not NCCL's";
      return false;
    }
    std::memcpy(&id, key.data(), sizeof(id));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (const cudaError_t status = cudaSetDevice(place_.ordinal); status != cudaSuccess) {
      why = sentence(status);
      return false;
    }
    const ncclResult_t begun =
        ncclCommInitRankConfig(&comm_, place_.size, id, place_.rank, &config);
    const Watch watch(place_.patience);
    for (ncclResult_t now = good(begun) ? state() : begun; now != ncclSuccess; now = state()) {
      if (now != ncclInProgress) {
        why = ncclGetErrorString(now);
        return false;
      }
      if (!watch.pause()) {
        why = "the other ranks have not come";
        return false;
      }
    }
    return true;
  }

  const char* name() const override {
    return "NCCL";
  }
  int rank() const override {
    return place_.rank;
  }
  int size() const override {
    return place_.size;
  }

  bool exchange(std::span<const moe::ConstBytes> send, std::span<const moe::Bytes> receive,
                double patience, std::vector<int>& missing) override {
    const auto transfers = moe::grouped_transfers(place_.rank, send, receive);
    begin(transfers);
    const Watch watch(patience);
    while (!done()) {
      if (watch.pause())
        continue;
      for (const moe::DeviceTransfer& t : transfers) {
        if (t.kind == moe::DeviceTransfer::Kind::receive)
          missing.push_back(t.peer);
      }
      if (missing.empty()) {  // what this rank sends is not taken
        for (const moe::DeviceTransfer& t : transfers)
          missing.push_back(t.peer);
      }
      give_up();
      return false;
    }
    return true;
  }

  void end_all(int) noexcept override {
    give_up();
  }
  void finish() override {
    if (!comm_)
      return;
    check(ncclCommFinalize(comm_), "ending");
    const Watch watch(place_.patience);
    while (state() == ncclInProgress && watch.pause()) {
    }
    ncclCommDestroy(std::exchange(comm_, nullptr));
  }

 private:
  void begin(const std::vector<moe::DeviceTransfer>& transfers) {
    using Kind = moe::DeviceTransfer::Kind;
    if (!comm_)
      throw moe::Error(moe::Exit::bug, "an exchange between devices came after its end");
    check(ncclGroupStart(), "beginning an exchange");
    for (const moe::DeviceTransfer& t : transfers) {
      if (t.kind == Kind::send)
        check(ncclSend(t.from, t.bytes, ncclUint8, t.peer, comm_, stream_), "sending");
      else if (t.kind == Kind::receive)
        check(ncclRecv(t.to, t.bytes, ncclUint8, t.peer, comm_, stream_), "receiving");
    }
    check(ncclGroupEnd(), "beginning an exchange");
    for (const moe::DeviceTransfer& t : transfers) {
      if (t.kind == Kind::copy)
        check(cudaMemcpyAsync(t.to, t.from, t.bytes, cudaMemcpyDeviceToDevice, stream_), "copying");
    }
  }
  bool done() {
    const ncclResult_t now = state();
    check(now, "an exchange");
    if (now == ncclInProgress)  // not even in the stream yet
      return false;
    const cudaError_t status = cudaStreamQuery(stream_);
    if (status == cudaErrorNotReady)
      return false;
    check(status, "an exchange");
    return true;
  }
  ncclResult_t state() const {
    ncclResult_t now = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &now);
    return asked == ncclSuccess ? now : asked;
  }
  void check(ncclResult_t result, const char* doing) const {
    if (good(result))
      return;
    throw moe::Error(moe::Exit::environment, std::string("NCCL failed at ") + doing + ": " +
                                                 ncclGetErrorString(result) + ", " +
                                                 ncclGetLastError(comm_))
        .hint("NCCL_DEBUG=INFO says more");
  }
  void check(cudaError_t status, const char* doing) const {
    if (status == cudaSuccess)
      return;
    throw moe::Error(moe::Exit::environment,
                     std::string("CUDA failed at ") + doing + ": " + sentence(status))
        .hint("moe verify --device cuda runs every operation on known shapes");
  }
  // Also while others wait for this rank: its kernels end.
  void give_up() noexcept {
    if (comm_)
      ncclCommAbort(std::exchange(comm_, nullptr));
  }

  moe::DevicePlace place_;
  cudaStream_t stream_;
  ncclComm_t comm_ = nullptr;
};

bool identity(int ordinal, std::string& out, std::string& why) {
  cudaDeviceProp p{};
  if (const cudaError_t status = cudaGetDeviceProperties(&p, ordinal); status != cudaSuccess) {
    cudaGetLastError();
    why = "there is no GPU: " + sentence(status);
    return false;
  }
  out.assign(p.uuid.bytes, sizeof(p.uuid.bytes));
  return true;
}

bool make_key(std::string& key, std::string& why) {
  ncclUniqueId id;
  if (const ncclResult_t result = ncclGetUniqueId(&id); result != ncclSuccess) {
    why = ncclGetErrorString(result);
    return false;
  }
  key.assign(id.internal, sizeof(id.internal));
  return true;
}

moe::Transport* open(const moe::DevicePlace& place, const std::string& key, std::string& why) {
  auto nccl = std::make_unique<Nccl>(place);
  return nccl->meet(key, why) ? nccl.release() : nullptr;
}

}  // namespace

extern "C" const moe::DeviceModule* moe_device_module() {
  static constexpr moe::DeviceModule module{identity, make_key, open};
  return &module;
}
