// moe bench layer: one MoE layer, forward and forward with backward, as a share of what dense
// products of the same FLOPs reach in the same run. FLOPs by the public convention: 6 T I H k for a
// gated layer forward, twice that backward.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "apps/bench/bench.h"
#include "apps/bench/layer_profile.h"
#include "apps/former_names.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/backend/on_device.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/layer/moe_layer.h"
#include "lib/router/router.h"

namespace moe {
namespace {

struct Options {
  std::vector<Index> tokens, hidden, width, experts, k;
  std::vector<std::string> router, balance;
  bool profile = false;
  BenchOptions bench;
};

struct Shape {
  Index tokens, hidden, width, experts, k;
  std::string router;
  int threads;
};

// Normal numbers; of many, the first 65,536 over and over, a row begun elsewhere each time: drawing
// them would take longer than the bench.
Array<float> noise(Backend<float>& b, Rng& rng, Index rows, Index cols, double scale) {
  std::vector<float> drawn(std::size_t(std::min<Index>(rows * cols, 65536)));
  for (float& v : drawn)
    v = float(scale * rng.normal());
  Matrix<float> m(rows, cols);
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; ++j)
      m(i, j) = drawn[(i * (cols + 7919) + j) % Index(drawn.size())];
  }
  return {b, m.view()};
}

// A layer with its input and gradients, and the three things that are timed.
class Bench {
 public:
  Bench(Backend<float>& b, const LayerConfig& c, Index tokens) : backend_(b), layer_(c, b) {
    Rng rng(7);
    for (Index t = 0; t < tokens; ++t)
      batch_.token.push_back(int(t % 251));
    batch_.start = {0, tokens};
    x_ = noise(b, rng, tokens, c.hidden, 1);
    dy_ = noise(b, rng, tokens, c.hidden, 1);
    y_ = Array<float>(b, tokens, c.hidden);
    dx_ = Array<float>(b, tokens, c.hidden);
    layer_.collect(parameters_);
    for (Parameter<float>* p : parameters_) {
      p->set(noise(b, rng, p->value().rows, p->value().cols, 1 / std::sqrt(double(p->value().cols)))
                 .to_host()
                 .view());
      p->want_grad(b);
    }
  }
  void forward(bool training) {
    Rng rng(8);
    tape_ = std::make_unique<MoeTape<float>>(batch_);
    layer_.forward({.batch = batch_, .training = training, .rng = &rng}, std::as_const(x_).view(),
                   y_.view(), *tape_);
  }
  void both() {
    forward(true);
    backward();
  }
  void backward() {  // of the last forward pass of training
    Rng rng(8);
    layer_.backward({.batch = batch_, .training = true, .rng = &rng}, *tape_,
                    std::as_const(x_).view(), std::as_const(dy_).view(), dx_.view());
  }
  // The experts alone, on the rows that the last forward pass sorted.
  void experts() {
    ExpertTape<float> bodies;
    if (sorted_.rows() != tape_->slots.plan.slots) {
      sorted_ = Array<float>(backend_, tape_->slots.plan.slots, x_.cols());
      ys_ = Array<float>(backend_, tape_->slots.plan.slots, x_.cols());
      backend_.dispatch(std::as_const(x_).view(), tape_->slots.plan, sorted_.view());
    }
    backend_.experts(layer_.expert_parameters().weights(), std::as_const(sorted_).view(),
                     tape_->slots.plan, bodies, ys_.view());
  }
  // Experts that got a token, in the last pass.
  Index used() const {
    const Matrix<int> offset = tape_->slots.plan.offset.to_host();
    Index n = 0;
    for (Index e = 0; e + 1 < offset.cols(); ++e)
      n += offset(0, e) < offset(0, e + 1);
    return n;
  }

 private:
  Backend<float>& backend_;
  MoeLayer<float> layer_;
  Batch batch_;
  Array<float> x_, dy_, y_, dx_, sorted_, ys_;
  std::vector<Parameter<float>*> parameters_;
  std::unique_ptr<MoeTape<float>> tape_;
};

std::vector<Shape> shapes_of(const Options& o) {
  std::vector<Shape> out;
  for (const int threads : o.bench.threads) {
    for (const Index tokens : o.tokens) {
      for (const Index hidden : o.hidden) {
        for (const Index width : o.width) {
          for (const Index experts : o.experts) {
            for (const Index k : o.k) {
              if (o.router.empty()) {
                out.push_back(
                    {tokens, hidden, width, experts, k, concat("softmax:k=", k), threads});
              }
              for (const std::string& r : o.router) {
                out.push_back({tokens, hidden, width, experts,
                               Index(make_router(r, int(experts))->choices()), r, threads});
              }
            }
          }
        }
      }
    }
  }
  return out;
}

void add_row(Rows& rows, const Backend<float>& device, const Shape& s, const char* pass,
             const Timing& t, double flops, double bytes, double ceiling, double bandwidth,
             double outside) {
  rows.next();
  rows.text("router", s.router);
  rows.whole("tokens", s.tokens);
  rows.whole("hidden", s.hidden);
  rows.whole("width", s.width);
  rows.whole("experts", s.experts);
  rows.whole("k", s.k);
  rows.text("dtype", device_dtype(device));
  rows.whole("threads", s.threads);
  rows.text("pass", pass);
  add_times(rows, t);
  rows.number("gflops", "GFLOP/s", "6 T I H k forward, three times that with backward",
              flops / t.median() * 1e-9);
  rows.number("ceiling_gflops", "GFLOP/s", "three dense products of T k rows, best of 5 or more",
              ceiling);
  rows.number("ratio", "x", "gflops over ceiling_gflops", flops / t.median() * 1e-9 / ceiling, 3);
  rows.number("outside", "%", "of the time not in the experts: router, plan, dispatch, combine",
              outside);
  rows.number("memory_ms", "ms",
              "what the weights and gradients of the experts in use take to read and write, at the "
              "rate of y += x",
              bytes / bandwidth * 1e-6, 2);
}

LayerConfig config_of(const Shape& s, const Options& o) {
  LayerConfig c{.hidden = s.hidden, .width = s.width, .experts = int(s.experts)};
  c.router = s.router;
  c.balance = o.balance;
  return c;
}

// A row for each part of the layer's time.
void profile_shape(const Shape& s, const Options& o, Backend<float>& device, Rows& rows) {
  Bench bench(device, config_of(s, o), s.tokens);
  const auto parts =
      parts_of_passes({{"forward", [&] { bench.forward(true); }},
                       {"backward", [&] { bench.backward(); }}},
                      dynamic_cast<OnDevice<float>*>(&device) ? [&] { device.wait(); }
                                                              : std::function<void()>(),
                      o.bench.seconds * 2);
  for (const PartTime& p : parts) {
    double of_pass = 0;
    for (const PartTime& other : parts)
      of_pass += other.pass == p.pass ? other.seconds : 0;
    rows.next();
    rows.text("router", s.router);
    rows.whole("tokens", s.tokens);
    rows.whole("hidden", s.hidden);
    rows.whole("width", s.width);
    rows.whole("experts", s.experts);
    rows.whole("k", s.k);
    rows.text("dtype", device_dtype(device));
    rows.whole("threads", s.threads);
    rows.text("pass", p.pass);
    rows.text("part", p.part);
    rows.number("ms", "ms", "mean of a pass of training, without the parts inside", p.seconds * 1e3,
                3);
    rows.number("share", "%", "of the time of the pass", 100 * p.seconds / of_pass, 2);
  }
}

void bench_shape(const Shape& s, const Options& o, Backend<float>& device, double bandwidth,
                 Rows& rows, std::vector<Timing>& times) {
  Bench bench(device, config_of(s, o), s.tokens);
  const double ceiling = ceiling_gflops(device, s.tokens * s.k, s.hidden, s.width);
  const double ceiling_both = dynamic_cast<OnDevice<float>*>(&device)
                                  ? ceiling_gflops(device, s.tokens * s.k, s.hidden, s.width, true)
                                  : ceiling;
  const auto t = time_in_turn(device,
                              {[&] { bench.forward(false); }, [&] { bench.experts(); },
                               [&] {
                                 bench.both();
                               }},
                              o.bench.seconds);
  const double flops = 6.0 * double(s.tokens) * double(s.width) * double(s.hidden) * double(s.k);
  const double weights = 12.0 * double(bench.used()) * double(s.hidden * s.width);
  const double outside = 100 * (1 - t[1].median() / t[0].median());
  add_row(rows, device, s, "forward", t[0], flops, weights, ceiling, bandwidth, outside);
  add_row(rows, device, s, "forward+backward", t[2], 3 * flops, 4 * weights, ceiling_both,
          bandwidth, NAN);
  times.push_back(t[0]);
  times.push_back(t[2]);
}

int layer(const Options& o) {
  const auto device = open_device(o.bench.device);
  Rows rows;
  std::vector<Timing> times;
  const auto shapes = shapes_of(o);
  const double bandwidth = o.profile ? 0 : memory_gbytes(*device);
  Progress progress("shapes", double(shapes.size()), "shape");
  for (std::size_t i = 0; i < shapes.size() && !stop_signal(); ++i) {
    set_threads(shapes[i].threads);
    if (o.profile)
      profile_shape(shapes[i], o, *device, rows);
    else
      bench_shape(shapes[i], o, *device, bandwidth, rows, times);
    progress.update(double(i + 1));
  }
  if (o.profile) {
    return write_bench(std::move(rows).table("layer_profile", "Where the time of a layer goes",
                                             "Each part without the parts inside it."),
                       fmt::format("Parts of a MoE layer on {}", device->name()), {}, o.bench);
  }
  const std::string title =
      fmt::format("A MoE layer on {}; memory {:.1f} GB/s", device->name(), bandwidth);
  return write_bench(
      std::move(rows).table("layer", "Layer",
                            "ratio 1 = as fast as dense products of the same FLOPs."),
      title, times, o.bench);
}

// Sweeps: an option given twice makes a row for each value.
void add_sizes(CommandLine& cli, const char* name, std::vector<Index>& values, const char* about,
               const char* standard) {
  cli.add_option(name, values, about).repeatable().check(whole(1)).show_default(standard);
}

}  // namespace

Run bench_layer(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  add_sizes(cli, "--tokens", o->tokens,
            "T, tokens of a batch; every size may be given again for a sweep", "2048");
  add_sizes(cli, "--hidden", o->hidden, "H", "512");
  add_sizes(cli, "--width", o->width, "I, hidden units of an expert", "1024");
  add_sizes(cli, "--experts", o->experts, "E", "8");
  add_sizes(cli, "--top-k", o->k, "experts a token, by the softmax router", "2");
  cli.add_option(
         "--router", o->router,
         "another router, its k with it: synthetic_load:k=2,hot=0.5 for a skewed load; may be "
         "given again")
      .type_name("SPEC")
      .check(current_router_names())
      .repeatable();
  cli.add_option("--balance", o->balance,
                 "balance losses that the layer computes; may be given again")
      .type_name("SPEC")
      .repeatable();
  cli.add_flag("--profile", o->profile,
               "where the time goes instead: scores, top-k, plan, dispatch, experts, combine and "
               "their backwards, in ms and as shares");
  add_bench(cli, o->bench);
  return [o, cli] {
    if (!o->router.empty() && !o->k.empty())
      throw Error(Exit::usage, "--top-k cannot be given with --router, whose spec has its own k");
    const auto standard = [](std::vector<Index>& v, Index n) {
      if (v.empty())
        v.push_back(n);
    };
    standard(o->tokens, 2048);
    standard(o->hidden, 512);
    standard(o->width, 1024);
    standard(o->experts, 8);
    standard(o->k, 2);
    settle(o->bench);
    return layer(*o);
  };
}

}  // namespace moe
