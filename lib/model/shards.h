// Parameters whose numbers ranks share out (ZeRO-3, arXiv 1910.02054): each keeps its runs of them,
// and all numbers come together while somebody computes with them. Of experts a rank may ask for
// those that it needs.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lib/core/comm.h"
#include "lib/model/ownership.h"

namespace moe {

class Shards {
 public:
  using Runs = std::vector<NumberRange>;
  // runs (ranks)(parameters): what each rank keeps, between them everything. `experts`: how many of
  // them are stacked in each parameter; 0 = none. From here on the numbers are away
  // (Parameter::exchange_value).
  Shards(Comm&, Backend<float>&, std::vector<Parameter<float>*>,
         std::vector<std::vector<Runs>> runs, int experts);

  // On all ranks at once: the parameters have their numbers until release(); of experts those with
  // wanted[e], the others nothing.
  void bring();
  void bring(std::span<const std::uint8_t> wanted);
  void release();
  // Numbers of parameter p that this rank keeps, of which no run is cut.
  View<float> own(std::size_t p, NumberRange part);
  const Runs& runs(std::size_t p) const {
    return runs_[std::size_t(comm_.rank())][p];
  }
  std::size_t parameters() const {
    return parameters_.size();
  }
  bool finite(std::size_t p) const;
  // Numbers that other ranks asked for, and those that all of them would have been.
  struct Sent {
    std::int64_t asked = 0, all = 0;
  };
  const Sent& sent() const {
    return sent_;
  }

 private:
  Runs asked(int rank, std::size_t p, std::span<const std::uint8_t> wanted) const;
  void bring(std::size_t p, const std::vector<std::vector<std::uint8_t>>& wanted);
  Index numbers(const Runs&) const;

  Comm& comm_;
  Backend<float>& backend_;
  std::vector<Parameter<float>*> parameters_;
  std::vector<std::vector<Runs>> runs_;
  int experts_;
  std::vector<Array<float>> kept_;  // runs of this rank behind each other
  Sent sent_;
};

}  // namespace moe
