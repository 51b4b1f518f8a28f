// Published training runs as data (published_runs.def), and the factors of a step's terms fitted to
// them. A row is only ever judged by a fit that has not seen it: nor, in the stricter of the two
// figures, any other row of the same model on the same kind of device.
#pragma once
#include <string>
#include <vector>

#include "lib/plan/step_time.h"

namespace moe::plan {

struct PublishedRun {
  std::string_view model, cluster, layout;
  double tokens = 0;  // a second and device
  std::string_view source, refused;
};
const std::vector<PublishedRun>& published_runs();

// A published exchange of expert parallelism (all_to_all_runs.def): bytes counted as its authors
// do, copies for the device itself among them, over its time.
struct PublishedExchange {
  std::string_view device;
  ExchangeShape shape;
  double tokens = 0, row = 0;  // of a device; bytes
  double rate = 0;             // bytes/s; of the network where it is crossed, else of the links
  std::string_view source;

  double seconds() const;  // as published
};
const std::vector<PublishedExchange>& published_exchanges();

// How much longer exchanges take than bytes over the data sheet's rates: links by the exchanges
// that stay in a node, the network by those of at least `net_from` nodes.
struct ExchangeFactors {
  double link = 1, net = 1;
};
ExchangeFactors exchange_factors(const PublishedExchange* without = nullptr);
double predicted_seconds(const PublishedExchange&, const ExchangeFactors&);

struct FitRow {
  const PublishedRun* run = nullptr;
  Layout layout;
  std::string device;
  StepParts parts;
};
std::vector<FitRow> fit_rows();  // those that are not refused

// Factors that make the sum of |predicted / published time - 1| least over the rows (weighted least
// squares, repeated): two of products, of rows, of launching with and without graphs. The others
// are exchange_factors() and 1.
Terms fitted(const std::vector<const FitRow*>&);

struct Judged {
  double alone = 0;    // predicted / published tokens, fitted without the row
  double strange = 0;  // fitted without any row of its model on its kind of device
};
std::vector<Judged> leave_one_out(const std::vector<FitRow>&);

// |error| that half, and 80 %, of predictions stay within.
struct Band {
  double half = 0, most = 0, worst = 0;
};
Band band_of(std::vector<double> ratios);

// What a prediction is made with: factors of all rows, and the stricter band.
struct Calibration {
  Terms factors{};
  Band alone, strange;
  std::size_t rows = 0;
};
const Calibration& calibration();

}  // namespace moe::plan
