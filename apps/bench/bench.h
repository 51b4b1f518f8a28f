// What the benches share: how times are taken, the ceiling they are held against, and a table that
// grows row by row.
#pragma once
#include <functional>

#include "analysis/table.h"
#include "apps/command.h"
#include "apps/output.h"
#include "lib/backend/backend.h"

namespace moe {

const Registry<Command>& benches();  // apps/bench/benches.def

struct Timing {  // seconds of single runs, ascending
  std::vector<double> seconds;
  double best() const {
    return seconds.front();
  }
  double median() const {
    return quantile(0.5);
  }
  double quantile(double q) const;
  double spread() const;  // between the quartiles, of the median, %
};
double seconds_of(const std::function<void()>& run);
double seconds_of(Backend<float>&, const std::function<void()>& run);  // until the device is done
// Several things in turn, so that what disturbs the machine disturbs all of them: once to warm up,
// then at least three times and for about as long as asked, 1000 times at most. With a device each
// time ends when it is done.
std::vector<Timing> time_in_turn(const std::vector<std::function<void()>>& runs, double budget);
std::vector<Timing> time_in_turn(Backend<float>&, const std::vector<std::function<void()>>& runs,
                                 double budget);

// of the operands of its products
inline const char* device_dtype(const Backend<float>& b) {
  return b.rounding() > 0 ? "bf16" : "f32";
}
// GFLOP/s of a gated body as three dense products, (T,H)(H,I) twice and (T,I)(I,H): best of 5 or
// more. On a device the plain products of its library (OnDevice::plain_products), with their
// gradients where `backward`; on the host its `linear`, whose rate stands for both.
double ceiling_gflops(Backend<float>&, Index rows, Index hidden, Index width,
                      bool backward = false);
// GB/s of y += x over arrays that no cache holds: best of 5 or more.
double memory_gbytes(Backend<float>&);

// Peak memory of the process since the last reset, bytes; NaN where the system does not say.
void reset_peak_memory();
double peak_memory();

// A table by rows: every row names its cells, in the order of the first row.
class Rows {
 public:
  void next() {
    ++count_;
  }
  void text(const char* name, std::string value);
  void whole(const char* name, std::int64_t value);
  void number(const char* name, const char* unit, const char* meaning, double value,
              int digits = 1);
  std::int64_t size() const {
    return count_;
  }
  Table table(std::string id, std::string title, std::string reading) &&;

 private:
  Column& column(const char* name);
  std::vector<Column> columns_;
  std::int64_t count_ = 0;
};
// The columns every bench has: median, best, p99, spread.
void add_times(Rows&, const Timing&);

struct BenchOptions {
  double seconds = 1;
  std::vector<int> threads;  // a row for each; never empty once parsed
  DeviceOptions device;
  OutputOptions out;
};
void add_bench(CommandLine&, BenchOptions&);
void add_bench_on_host(CommandLine&, BenchOptions&);  // the same without --device
void settle(BenchOptions&);  // what is not given gets its default; called first by every bench
// Prints it: JSON as one object a row. Says where times spread too much to be trusted.
int write_bench(Table, std::string title, const std::vector<Timing>&, const BenchOptions&);

}  // namespace moe
