// The yardstick: plain dense cuBLAS products in bf16, in and out, of the shapes an expert layer has when all rows use one expert.
#include <algorithm>
#include <chrono>
#include <vector>

#include "lib/backend/cuda/device.h"
#include "lib/core/dtype.h"
#include "lib/core/rng.h"
#include "tests/gpu/rows.h"

namespace moe::gpu_check {
namespace {

class Numbers {  // random bf16 on the device
 public:
  Numbers(gpu::Device& d, Index size, std::uint64_t seed) : device_(d), bytes_(std::size_t(size) * 2), data_(d.allocate(bytes_)) {
    Rng rng(seed);
    std::vector<std::uint16_t> block(std::size_t(std::min<Index>(size, Index(1) << 20)));
    for (std::uint16_t& v : block) v = float_to_bf16(float(rng.normal()));
    for (std::size_t at = 0; at < bytes_; at += block.size() * 2)
      d.to_device(block.data(), static_cast<char*>(data_) + at, std::min(block.size() * 2, bytes_ - at));
  }
  ~Numbers() { device_.release(data_, bytes_); }
  Numbers(const Numbers&) = delete;
  void* data() { return data_; }

 private:
  gpu::Device& device_;
  std::size_t bytes_;
  void* data_;
};

}  // namespace

double dense_seconds(Index rows, Index hidden, Index width, bool backward) {
  gpu::Device device(0);
  Numbers x(device, rows * hidden, 1), g(device, rows * width, 2), u(device, rows * width, 3), y(device, rows * hidden, 4);
  Numbers wg(device, width * hidden, 5), wu(device, width * hidden, 6), wd(device, hidden * width, 7);
  const gpu::GemmTypes half{true, true};
  const auto run = [&] {
    device.gemm(gpu::forward_gemm(rows, hidden, width, x.data(), wg.data(), g.data(), 0), half);
    device.gemm(gpu::forward_gemm(rows, hidden, width, x.data(), wu.data(), u.data(), 0), half);
    device.gemm(gpu::forward_gemm(rows, width, hidden, u.data(), wd.data(), y.data(), 0), half);
    if (!backward) return;
    device.gemm(gpu::dx_gemm(rows, width, hidden, y.data(), wd.data(), g.data(), 0), half);
    device.gemm(gpu::dx_gemm(rows, hidden, width, u.data(), wg.data(), y.data(), 0), half);
    device.gemm(gpu::dx_gemm(rows, hidden, width, u.data(), wu.data(), y.data(), 0), half);
    device.gemm(gpu::dw_gemm(rows, width, hidden, x.data(), u.data(), wd.data(), 0), half);
    device.gemm(gpu::dw_gemm(rows, hidden, width, u.data(), x.data(), wg.data(), 0), half);
    device.gemm(gpu::dw_gemm(rows, hidden, width, u.data(), x.data(), wu.data(), 0), half);
  };
  for (int i = 0; i < 3; ++i) run();
  device.wait("dense products");
  std::vector<double> times;
  for (int batch = 0; batch < 5; ++batch) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 4; ++i) run();
    device.wait("dense products");
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 4);
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}
std::string device_text() { return gpu::Device(0).description(); }

}  // namespace moe::gpu_check
