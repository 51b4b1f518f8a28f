// Measuring products, memory and decoding.
#include "apps/machine_rates.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "apps/bench/bench.h"
#include "lib/backend/cpu_loops.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/layer/parameter.h"
#include "lib/model/decoder.h"
#include "lib/model/sizes.h"

namespace moe {
namespace {

constexpr Index side = 1024;  // of the matrix that products of many rows are timed with
constexpr Index prompt = 8;   // tokens before the first that is timed
// Times are those that a tenth of all runs stay below: what else runs on the machine only adds.
constexpr double undisturbed = 0.1;
constexpr int f32 = 4;  // bytes
// Models whose weights fit any cache: what their tokens take is not reading.
constexpr const char* one_choice =
    "nano:hidden=64,layers=8,heads=4,kv_heads=2,width=16,experts=16,vocabulary=64,router={softmax:"
    "k=1}";
constexpr const char* eight_choices =
    "nano:hidden=64,layers=8,heads=4,kv_heads=2,width=16,experts=16,vocabulary=64,router={softmax:"
    "k=8}";

double between(const std::vector<RatePoint>& points, double x) {
  if (points.empty())
    return 0;
  if (x <= points.front().x)
    return points.front().rate;
  for (std::size_t i = 1; i < points.size(); ++i) {
    const RatePoint& a = points[i - 1];
    const RatePoint& b = points[i];
    if (x <= b.x) {
      const double at = std::log(x / a.x) / std::log(b.x / a.x);
      return a.rate + at * (b.rate - a.rate);
    }
  }
  return points.back().rate;
}

double product_rate(Backend<float>& b, Index rows, double seconds) {
  Parameter<float> w(b, "w", {side, side});
  w.set(Matrix<float>(side, side, 0.01f).view());
  const Array<float> x(b, Matrix<float>(rows, side, 0.5f).view());
  Array<float> y = Array<float>::zeros(b, rows, side);
  const Timing t = time_in_turn(b, {[&] {
                                  b.linear(x.view(), w.weight(), y.view(), 0);
                                }},
                                seconds)[0];
  return 2.0 * double(rows) * double(side) * double(side) / t.quantile(undisturbed);
}

// One row through matrices of (size,size), each time any of `count`: as tokens read experts, of
// which a cache that is smaller than all of them holds some.
double reading_rate(Backend<float>& b, Index size, Index count, double seconds) {
  std::vector<std::unique_ptr<Parameter<float>>> all;
  for (Index i = 0; i < count; ++i) {
    all.push_back(std::make_unique<Parameter<float>>(b, "w", std::vector<Index>{size, size}));
    all.back()->set(Matrix<float>(size, size, 0.01f).view());
  }
  const Array<float> x(b, Matrix<float>(1, size, 0.5f).view());
  Array<float> y = Array<float>::zeros(b, 1, size);
  Rng rng(1);
  const Timing t = time_in_turn(b, {[&] {
                                  for (Index i = 0; i < count; ++i) {
                                    const auto any = std::size_t(rng.below(std::uint64_t(count)));
                                    b.linear(x.view(), all[any]->weight(), y.view(), 0);
                                  }
                                }},
                                seconds)[0];
  return double(f32 * size * size * count) / t.quantile(undisturbed);
}

struct ReadBytes {
  double each = 0, all = 0;  // by a token, and by all that may be chosen
};
ReadBytes read_bytes(const Architecture& a) {
  ReadBytes out;
  for (const WeightPiece& p : pieces(a)) {
    if (p.part == ModelPart::embedding && !p.multiplied)
      continue;
    out.each += f32 * p.size() * p.active;
    out.all += f32 * p.size() * double(p.count);
  }
  return out;
}

double choices(const Architecture& a) {
  double sum = 0;
  for (const LayerShape& l : a.layers) {
    if (l.feed && l.feed->is_moe())
      sum += double(l.feed->k);
  }
  return sum;
}

}  // namespace

double MachineRates::read_rate(double bytes) const {
  return between(reads, bytes);
}
double MachineRates::product_rate(double rows) const {
  return between(products, rows);
}

double predicted_decode(const ModelConfig& c, const MachineRates& r) {
  const Architecture a = architecture_of(resolved(c));
  const ReadBytes bytes = read_bytes(a);
  return double(a.layers.size()) * r.layer_s + choices(a) * r.choice_s +
         bytes.each / r.read_rate(bytes.all);
}

std::vector<double> decode_times(Decoder<float>& model, Backend<float>& b, double seconds) {
  Rng rng(1);
  DecoderState state;
  Index past = 0;
  std::vector<int> next(std::size_t(prompt), 1);
  std::vector<double> times;
  double spent = 0;
  while ((spent < seconds || times.size() < 16) && past + 1 < model.config().context) {
    const Batch batch{.token = next, .start = {0, Index(next.size())}, .past = {past}};
    Decoder<float>::Tape tape;
    Matrix<float> logits;
    const double t = seconds_of(
        b, [&] { model.infer({.batch = batch, .rng = &rng}, tape, {}, &state, &logits); });
    past += batch.tokens();
    if (next.size() == 1) {
      times.push_back(t);
      spent += t;
    }
    next = {int(rng.below(model.config().vocabulary))};
  }
  std::ranges::sort(times);
  return times;
}

double measured_decode(const ModelConfig& c, Backend<float>& b, double seconds) {
  Decoder<float> model(c, b);
  model.initialise(1);
  const std::vector<double> times = decode_times(model, b, seconds);
  return times[std::size_t(undisturbed * double(times.size()))];
}

double memory_read_rate() {
  constexpr Index each = Index(1) << 20;  // numbers that a thread takes at once
  constexpr Index count = 256;            // 1 GiB
  const std::vector<float> numbers(std::size_t(each * count), 1.0f);
  std::vector<float> sums(static_cast<std::size_t>(count));
  double best = INFINITY;
  for (int i = 0; i < 5; ++i) {
    const double t = seconds_of([&] {
      parallel_for(count, 1, [&](Index first, Index last) {
        for (Index p = first; p < last; ++p) {
          const float* from = numbers.data() + p * each;
          loops::row_dots(from, from, &sums[std::size_t(p)], 0, 1, each);
        }
      });
    });
    best = std::min(best, t);
  }
  return double(f32 * each * count) / best;
}

MachineRates measure_machine(Backend<float>& b, double seconds) {
  MachineRates out{.threads = threads()};
  for (const Index rows : {1, 4, 16, 64, 256, 1024})
    out.products.push_back({double(rows), product_rate(b, rows, seconds)});
  // matrices and how many of them: a quarter of a MiB to 256 MiB in all
  for (const auto& [size, count] : {std::pair<Index, Index>{256, 1},
                                    {256, 4},
                                    {512, 4},
                                    {512, 16},
                                    {512, 32},
                                    {1024, 16},
                                    {1024, 32},
                                    {1024, 64}}) {
    out.reads.push_back({double(f32 * size * size * count), reading_rate(b, size, count, seconds)});
  }
  out.memory = 1e9 * memory_gbytes(b);
  const ModelConfig one = model_config(one_choice);
  const ModelConfig eight = model_config(eight_choices);
  const auto left = [&](const ModelConfig& c) {
    const ReadBytes bytes = read_bytes(architecture_of(resolved(c)));
    return measured_decode(c, b, seconds) - bytes.each / out.read_rate(bytes.all);
  };
  const double first = left(one);
  const double second = left(eight);
  const double layers = double(one.layers);
  out.choice_s = std::max(0.0, (second - first) / (7 * layers));
  out.layer_s = std::max(0.0, first / layers - out.choice_s);
  return out;
}

}  // namespace moe
