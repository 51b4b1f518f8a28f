// What this machine does, measured: products by their rows, weights read by products of one row,
// memory, a disk, and what a layer of a decoding model takes besides. moe bench machine prints it,
// moe plan --here predicts from it.
#pragma once
#include <filesystem>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/model/config.h"

namespace moe {

template <class S>
class Decoder;

struct RatePoint {
  double x = 0, rate = 0;
};

struct MachineRates {
  int threads = 1;
  std::vector<RatePoint> products;  // x = rows of a product with a (1024,1024) matrix; FLOP/s
  // x = bytes of all weights that products of one row go through in turn; bytes/s
  std::vector<RatePoint> reads;
  double memory = 0;  // bytes/s of y += x over arrays that no cache holds
  // seconds of a decoding model's layer, and of each expert chosen in it, besides reading weights
  double layer_s = 0, choice_s = 0;

  double read_rate(double bytes) const;    // between points by the logarithm of x
  double product_rate(double rows) const;  // the same
};

double memory_of_machine();  // bytes

// About `seconds` for each of some twenty measurements.
MachineRates measure_machine(Backend<float>&, double seconds);

// Seconds of decoding one token with few before it, f32 weights: predicted from the rates, and
// measured with random weights over about `seconds`; both of the least disturbed tenth of runs.
double predicted_decode(const ModelConfig&, const MachineRates&);
double measured_decode(const ModelConfig&, Backend<float>&, double seconds);
// Seconds of decoding single tokens, ascending: as many as fit `seconds` and the model's context,
// at least 16 where that is longer.
std::vector<double> decode_times(Decoder<float>&, Backend<float>&, double seconds);
double memory_read_rate();  // bytes/s of a loop that only reads, on all threads; the best of five

struct DiskRate {
  double block = 0;                    // bytes of a read
  double in_order = 0, scattered = 0;  // bytes/s
};
// Writes a file of `bytes` in `folder`, reads it past the page cache (O_DIRECT) in order and at
// random places, and removes it. Throws Error(io), Error(environment) where the file system has no
// direct reads.
std::vector<DiskRate> measure_disk(const std::filesystem::path& folder, std::int64_t bytes,
                                   double seconds);

}  // namespace moe
