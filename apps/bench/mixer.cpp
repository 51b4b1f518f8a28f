// moe bench mixer: one mixer of one sequence, forward and forward with backward, as a share of what
// dense products of the same FLOPs reach in the same run. FLOPs: 2 for each number of a matrix, and
// what a token costs besides (docs/plan.md), twice that backward.
#include <fmt/format.h>

#include <memory>

#include "apps/bench/bench.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/core/batch.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/layer/parameter.h"
#include "lib/model/config.h"
#include "lib/model/mixer_type.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> mixer;
  std::vector<Index> tokens, hidden;
  BenchOptions bench;
};

struct Shape {
  std::string mixer;
  Index tokens, hidden;
  int threads;
};

Array<float> noise(Backend<float>& b, Index rows, Index cols, std::uint64_t seed, double scale) {
  Rng rng(seed);
  Matrix<float> m(rows, cols);
  for (float& v : m.flat())
    v = float(scale * rng.normal());
  return {b, std::as_const(m).view()};
}

class Bench {
 public:
  Bench(Backend<float>& b, const Shape& s)
      : config_(model_config(concat(
            "custom:layers=1,width=32,experts=2,vocabulary=64,heads=",
            std::max<Index>(1, s.hidden / 64), ",kv_heads=", std::max<Index>(1, s.hidden / 64),
            ",context=", s.tokens, ",hidden=", s.hidden, ",mixer={", s.mixer, "}"))) {
    mixer_ = std::move(make_mixers(config_, b, shared_)[0].mixer);
    std::vector<ModelParameter<float>> all;
    mixer_->collect(all);
    Rng rng(3);
    for (const ModelParameter<float>& p : all) {
      Matrix<float> m(p.parameter->value().rows, p.parameter->value().cols);
      for (Index i = 0; i < m.size(); ++i) {
        const double drawn = p.start.value + p.start.std * rng.normal();
        m.data()[i] = float(p.start.rule ? p.start.rule(i, rng.uniform()) : drawn);
      }
      p.parameter->set(std::as_const(m).view());
      p.parameter->want_grad(b);
    }
    batch_.token.assign(std::size_t(s.tokens), 0);
    batch_.start = {0, s.tokens};
    x_ = noise(b, s.tokens, s.hidden, 1, 1);
    dy_ = noise(b, s.tokens, s.hidden, 2, 1);
    y_ = Array<float>(b, s.tokens, s.hidden);
    dx_ = Array<float>(b, s.tokens, s.hidden);
  }
  void forward() {
    tape_ = mixer_->forward(batch_, std::as_const(x_).view(), y_.view(), nullptr);
  }
  void both() {
    forward();
    mixer_->backward(batch_, *tape_, std::as_const(x_).view(), std::as_const(dy_).view(),
                     dx_.view());
  }
  // forward, of all tokens
  double flops() const {
    const MixerShape shape = mixer_shapes(config_).at(0).value();
    PieceList pieces;
    add_pieces(shape, config_.hidden, pieces);
    const double tokens = double(batch_.tokens());
    // attention sees half of the tokens on average
    double sum = mixing_flops(shape, shape.attends() ? batch_.tokens() / 2 : batch_.tokens());
    for (const WeightPiece& p : pieces.all)
      sum += p.multiplied ? 2 * p.size() * double(p.count) : 0;
    return sum * tokens;
  }

 private:
  ModelConfig config_;
  SharedParts<float> shared_;
  std::unique_ptr<Mixer<float>> mixer_;
  Batch batch_;
  Array<float> x_, dy_, y_, dx_;
  std::unique_ptr<MixerTape> tape_;
};

void add_row(Rows& rows, const Shape& s, const char* pass, const Timing& t, double flops,
             double ceiling) {
  rows.next();
  rows.text("mixer", s.mixer);
  rows.whole("tokens", s.tokens);
  rows.whole("hidden", s.hidden);
  rows.whole("threads", s.threads);
  rows.text("pass", pass);
  add_times(rows, t);
  rows.number("token_us", "us", "median time of a token", t.median() / double(s.tokens) * 1e6, 2);
  rows.number("gflops", "GFLOP/s", "products with weights and the mixing itself",
              flops / t.median() * 1e-9);
  rows.number("ceiling_gflops", "GFLOP/s",
              "three dense products of as many rows, best of 5 or more", ceiling);
  rows.number("ratio", "x", "gflops over ceiling_gflops", flops / t.median() * 1e-9 / ceiling, 3);
}

std::vector<Shape> shapes_of(const Options& o) {
  std::vector<Shape> out;
  for (const int threads : o.bench.threads) {
    for (const std::string& mixer : o.mixer) {
      for (const Index hidden : o.hidden) {
        for (const Index tokens : o.tokens)
          out.push_back({mixer, tokens, hidden, threads});
      }
    }
  }
  return out;
}

int mixer(const Options& o) {
  const auto device = open_device(o.bench.device);
  Rows rows;
  std::vector<Timing> times;
  const auto shapes = shapes_of(o);
  Progress progress("shapes", double(shapes.size()), "shape");
  for (std::size_t i = 0; i < shapes.size() && !stop_signal(); ++i) {
    set_threads(shapes[i].threads);
    Bench bench(*device, shapes[i]);
    const double ceiling =
        ceiling_gflops(*device, shapes[i].tokens, shapes[i].hidden, 2 * shapes[i].hidden);
    const auto t = time_in_turn(*device,
                                {[&] { bench.forward(); },
                                 [&] {
                                   bench.both();
                                 }},
                                o.bench.seconds);
    add_row(rows, shapes[i], "forward", t[0], bench.flops(), ceiling);
    add_row(rows, shapes[i], "forward+backward", t[1], 3 * bench.flops(), ceiling);
    times.insert(times.end(), t.begin(), t.end());
    progress.update(double(i + 1));
  }
  return write_bench(
      std::move(rows).table("mixer", "Mixer",
                            "ratio 1 = as fast as dense products of the same FLOPs."),
      fmt::format("A mixer on {}", device->name()), times, o.bench);
}

}  // namespace

Run bench_mixer(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("--mixer", o->mixer, "a mixer (moe list mixers); may be given again")
      .type_name("SPEC")
      .repeatable()
      .show_default("all");
  cli.add_option("--tokens", o->tokens, "T, tokens of the one sequence; may be given again")
      .repeatable()
      .check(whole(1))
      .show_default("2048");
  cli.add_option("--hidden", o->hidden, "H; may be given again")
      .repeatable()
      .check(whole(1))
      .show_default("512");
  add_bench(cli, o->bench);
  return [o] {
    if (o->mixer.empty())
      o->mixer = mixers().names();
    if (o->tokens.empty())
      o->tokens = {2048};
    if (o->hidden.empty())
      o->hidden = {512};
    settle(o->bench);
    return mixer(*o);
  };
}

}  // namespace moe
