// The gradient noise scale of a training step: the gradients of its lanes are the small batches,
// their mean is the big one (lib/model/noise.h).
#include <cmath>
#include <limits>

#include "lib/core/profile.h"
#include "lib/model/squares.h"
#include "lib/model/trainer.h"

namespace moe {

// Columns of lane_squares_: the matrices of expert e in MoE layer l have 1 + l E + e, and all other
// trained numbers share the first.
Index Trainer::noise_columns() const {
  Index n = 1;
  for (const auto& layer : steps_with_gradient_)
    n += Index(layer.size());
  return n;
}

Index Trainer::noise_column(std::size_t layer, Index expert) const {
  Index n = 1 + expert;
  for (std::size_t l = 0; l < layer; ++l)
    n += Index(steps_with_gradient_[l].size());
  return n;
}

// The gradient of a lane, of the parameters of `s` that are here.
void Trainer::note_lane(Index lane, const Summed& s, const std::vector<Array<float>>& gradient) {
  if (!measuring_noise_)
    return;
  const TimeSpan time(TimePart::rest, "gradient noise");
  Squares squares(model_.backend(), noise_columns());
  for (std::size_t k = 0; k < gradient.size(); ++k) {
    const std::size_t i = s.parameters[k];
    const Parameter<float>& p = *parameters_[i];
    const View<const float> all = gradient[k].view();
    const bool of_experts = expert_layer_[i] >= 0 && p.kind() == ParameterKind::matrix;
    for (const auto [first, count] : rows_of(p)) {
      if (all.empty() || count == 0)
        continue;
      if (!of_experts) {
        squares.add(0, all.slice(first, count));
        continue;
      }
      const Index each = p.value().rows / p.dims()[0];
      for (Index row = first; row < first + count; row += each) {
        const Index expert = (p.first_held() + row) / each;
        squares.add(noise_column(std::size_t(expert_layer_[i]), expert), all.slice(row, each));
      }
    }
  }
  const Matrix<double> here = squares.read();
  for (Index c = 0; c < here.rows(); ++c)
    lane_squares_(lane, c) += here(c, 0);
}

// Those of all ranks: of each lane and column one rank alone has some, or the ranks that share the
// experts out, each its own.
void Trainer::gather_squares() {
  if (comm_.alone())
    return;
  const auto all = comm_.gather<double>({"squares of lanes"}, lane_squares_.flat());
  std::fill_n(lane_squares_.data(), lane_squares_.size(), 0.0);
  for (const auto& theirs : all) {
    for (Index i = 0; i < lane_squares_.size(); ++i)
      lane_squares_.data()[i] += theirs.at(std::size_t(i));
  }
}

void Trainer::measure_noise(StepResult& r) {
  if (!measuring_noise_)
    return;
  const TimeSpan time(TimePart::rest, "gradient noise");
  gather_squares();
  const double lanes = double(options_.lanes);
  const double big = double(options_.tokens_per_step());
  // a lane's gradient is 1 / lanes of its mean
  const auto estimate = [&](double sum_of_lanes, double square) {
    return estimate_noise(lanes * sum_of_lanes, square, big / lanes, big);
  };
  double sum = 0;
  for (const double v : lane_squares_.flat())
    sum += v;
  r.noise = estimate(sum, r.gradient_norm * r.gradient_norm);
  constexpr double none = std::numeric_limits<double>::quiet_NaN();
  for (std::size_t l = 0; l < r.layer.size(); ++l) {
    for (std::size_t e = 0; e < r.layer[l].counts.size(); ++e) {
      double of_expert = 0;
      for (Index lane = 0; lane < options_.lanes; ++lane)
        of_expert += lane_squares_(lane, noise_column(l, Index(e)));
      const double norm = r.layer[l].gradient_norm[e];
      r.layer[l].noise.push_back(parts_.trains_expert(int(e)) ? estimate(of_expert, norm * norm)
                                                              : NoiseEstimate{none, none});
    }
  }
}

}  // namespace moe
