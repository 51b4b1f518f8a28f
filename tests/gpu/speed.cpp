// Is it fast: an expert layer (plan, gather, products, combine; routing given) against dense cuBLAS
// products of the same FLOPs in the same run, against one product an expert, and with skewed
// routing. Inputs are random, never zeros.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "lib/backend/on_device.h"
#include "lib/core/rng.h"
#include "tests/gpu/rows.h"

namespace moe::gpu_check {
namespace {

struct Shape {
  const char* name;
  Index tokens, hidden, width;
  int experts, choices;
  double wanted_forward, wanted_both;  // share of dense
};
constexpr Shape shapes[] = {{"fine-grained", 24576, 1536, 256, 128, 8, 0.30, 0.27},
                            {"I=1024 E=32 k=2", 24576, 1536, 1024, 32, 2, 0.45, 0.40},
                            {"Mixtral", 8192, 4096, 14336, 8, 2, 0.80, 0.75}};
constexpr Shape small_shapes[] = {{"fine-grained, small", 256, 64, 32, 16, 4, 0, 0},
                                  {"Mixtral, small", 256, 64, 128, 8, 2, 0, 0}};

// Random numbers; a block of them again and again, so that gigabytes take seconds.
Array<float> noise(Backend<float>& b, Index rows, Index cols, double scale, std::uint64_t seed) {
  Array<float> a(b, rows, cols);
  Rng rng(seed);
  std::vector<float> block(std::size_t(std::min<Index>(rows * cols, Index(1) << 20)));
  for (float& v : block)
    v = float(rng.normal() * scale);
  for (Index at = 0; at < rows * cols; at += Index(block.size())) {
    b.to_device(
        block.data(), a.view().data + at,
        std::size_t(std::min<Index>(Index(block.size()), rows * cols - at)) * sizeof(float));
  }
  return a;
}
// Uniform choices that differ within a token; skewed: expert 0 is the first choice of half the
// tokens.
const Matrix<int> choices_of(const Shape& s, bool skewed) {
  Rng rng(9);
  Matrix<int> kept(s.tokens, s.choices);
  for (Index t = 0; t < s.tokens; ++t) {
    for (Index k = 0; k < s.choices; ++k) {
      int e = int(rng.below(s.experts));
      while (std::ranges::find(kept.row(t).first(std::size_t(k)), e) != kept.row(t).begin() + k)
        e = (e + 1) % s.experts;
      if (skewed && k == 0 && t % 2 == 0)
        e = 0;
      kept(t, k) = e;
    }
  }
  return kept;
}

class Layer {
 public:
  Layer(Backend<float>& b, const Shape& s, bool skewed)
      : b_(b), s_(s), kept_(b, choices_of(s, skewed).view()) {
    const Index e = s.experts;
    const double scale = 1 / std::sqrt(double(s.hidden));
    x_ = noise(b, s.tokens, s.hidden, 1, 1);
    dy_ = noise(b, s.tokens, s.hidden, 1, 2);
    weight_ = noise(b, s.tokens, s.choices, 0.5, 3);
    gate_ = noise(b, e * s.width, s.hidden, scale, 4);
    up_ = noise(b, e * s.width, s.hidden, scale, 5);
    down_ = noise(b, e * s.hidden, s.width, scale, 6);
    y_ = Array<float>(b, s.tokens, s.hidden);
    dx_ = Array<float>(b, s.tokens, s.hidden);
  }
  void want_gradients() {
    dgate_ = Array<float>::zeros(b_, gate_.rows(), gate_.cols());
    dup_ = Array<float>::zeros(b_, up_.rows(), up_.cols());
    ddown_ = Array<float>::zeros(b_, down_.rows(), down_.cols());
  }
  void forward() {
    plan_ = b_.plan(std::as_const(kept_).view(), s_.experts);
    sorted_ = Array<float>(b_, plan_.slots, s_.hidden);
    out_ = Array<float>(b_, plan_.slots, s_.hidden);
    b_.dispatch(std::as_const(x_).view(), plan_, sorted_.view());
    b_.experts(weights(), std::as_const(sorted_).view(), plan_, tape_, out_.view());
    b_.combine(std::as_const(out_).view(), plan_, std::as_const(weight_).view(), y_.view(), 0);
  }
  void both() {  // a training step: the weights are new each time, as AdamW leaves them
    ++version_;
    forward();
    Array<float> dout(b_, plan_.slots, s_.hidden);
    Array<float> dsorted(b_, plan_.slots, s_.hidden);
    Array<float> dweight(b_, s_.tokens, s_.choices);
    b_.dispatch(std::as_const(x_).view(), plan_, sorted_.view());
    b_.dispatch(std::as_const(dy_).view(), plan_, dout.view());
    b_.experts_backward(weights(), {dgate_.view(), dup_.view(), ddown_.view(), {}, {}, {}},
                        std::as_const(sorted_).view(), plan_, tape_, std::as_const(dout).view(),
                        std::as_const(weight_).view(), dsorted.view(), dweight.view());
    b_.combine(std::as_const(dsorted).view(), plan_, {}, dx_.view(), 0);
  }
  void wait() {
    float one;
    b_.to_host(y_.view().data, &one, sizeof one);
  }

 private:
  ExpertWeights<float> weights() const {
    const auto w = [&](const Array<float>& a, std::uint64_t id) {
      return Weight(a.view().data, DType::f32, a.rows(), a.cols(), id, version_);
    };
    return {Activation::swiglu, w(gate_, 1), w(up_, 2), w(down_, 3), {}, {}, {}};
  }
  Backend<float>& b_;
  Shape s_;
  Array<int> kept_;
  Array<float> x_, dy_, weight_, gate_, up_, down_, dgate_, dup_, ddown_, y_, dx_, sorted_, out_;
  Plan plan_;
  ExpertTape<float> tape_;
  std::uint64_t version_ = 1;
};

// Median of batches of runs, after warming up; the device is waited for at the ends of a batch
// alone.
template <class Run, class Wait>
double seconds_of(Run run, Wait wait) {
  for (int i = 0; i < 3; ++i)
    run();
  wait();
  std::vector<double> times;
  for (int batch = 0; batch < 5; ++batch) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 4; ++i)
      run();
    wait();
    times.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 4);
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}

struct Times {
  double forward = 0, both = 0;
};
Times times_of(const std::string& device, const Shape& s, bool skewed) {
  const auto backend = make_backend(device);
  Layer layer(*backend, s, skewed);
  Times t;
  t.forward = seconds_of([&] { layer.forward(); }, [&] { layer.wait(); });
  layer.want_gradients();
  t.both = seconds_of([&] { layer.both(); }, [&] { layer.wait(); });
  return t;
}

// The library's plain products with the FLOPs of the layer, 6 rows*hidden*width forwards, 18 with
// backward.
double dense_seconds(Backend<float>& b, Index rows, const Shape& s, bool backward) {
  const auto products =
      dynamic_cast<OnDevice<float>&>(b).plain_products(rows, s.hidden, s.width, backward);
  return seconds_of(products, [&] { b.wait(); });
}

std::string milliseconds(double seconds) {
  return fixed(seconds * 1e3, 2) + " ms";
}
std::string teraflops(double flops, double seconds) {
  return fixed(flops / seconds * 1e-12, 0);
}

void compare(const Shape& s, const std::string& device, Rows& rows) {
  const Index n = s.tokens * s.choices;
  const double flops = 6.0 * double(n) * double(s.hidden) * double(s.width);
  const Times even = times_of(device, s, false);
  const Times skewed = times_of(device, s, true);
  const Times loop =
      times_of(device + (device.find(':') == device.npos ? ":" : ",") + "grouped=0", s, false);
  const auto yardstick = make_backend(device);
  const double dense = dense_seconds(*yardstick, n, s, false);
  const double dense_both = dense_seconds(*yardstick, n, s, true);
  const std::string what = concat(s.name, ": ");
  rows.tell(what + "forward; with backward",
            concat(milliseconds(even.forward), "; ", milliseconds(even.both)));
  rows.tell(what + "TFLOP/s; dense cuBLAS bf16",
            concat(teraflops(flops, even.forward), "; ", teraflops(3 * flops, even.both),
                   "; dense ", teraflops(flops, dense), "; ", teraflops(3 * flops, dense_both)));
  const auto share = [&](const char* name, double got, double wanted) {
    rows.judge(what + name, fixed(got, 2), ">= " + fixed(wanted, 2), got >= wanted);
  };
  share("share of dense, forward", dense / even.forward, s.wanted_forward);
  share("share of dense, with backward", dense_both / even.both, s.wanted_both);
  share("times one product an expert", loop.both / even.both, 1.3);
  share("skewed, of balanced", even.both / skewed.both, 0.9);
}

}  // namespace

void speed(const std::string& device, bool small, Rows& rows) {
  if (small) {  // that it runs, nothing more
    for (const Shape& s : small_shapes) {
      const Times t = times_of(device, s, true);
      rows.judge(concat(s.name, " on ", device),
                 concat(fixed(t.forward * 1e3, 3), "; ", fixed(t.both * 1e3, 3), " ms"), "> 0",
                 t.forward > 0 && t.both > 0);
    }
    return;
  }
  for (const Shape& s : shapes)
    compare(s, device, rows);
}

}  // namespace moe::gpu_check
