#include "lib/trace/step_counts.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::uint64_t window_bytes = 16 << 20;
constexpr std::uint32_t minus_one = 0xFFFFFFFFu;

bool is_negative(std::span<const std::uint32_t> counts) {
  return std::ranges::find(counts, minus_one) != counts.end();
}

std::int64_t sum(std::span<const std::uint32_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

}  // namespace

std::uint64_t count_window(const TraceHeader& h) {
  const std::uint64_t step = h.layers.size() * std::uint64_t(h.max_experts()) * 4;
  return std::max<std::uint64_t>(1, window_bytes / std::max<std::uint64_t>(1, step));
}

CountSurvey::CountSurvey(const TraceHeader& h, std::span<const TraceStep> steps,
                         std::uint64_t count, const Read& read)
    : header_(h), steps_(steps), layer_(h.layers.size()) {
  for (std::size_t l = 0; l < layer_.size(); ++l)
    layer_[l].choices = h.capture_point == "post_capacity" ? 0 : h.layers[l].top_k;
  const std::uint64_t window = count_window(h);
  for (std::uint64_t at = 0; at < count; at += window)
    look(read(at, std::min(window, count - at)));
  for (std::uint64_t at = 0; at < count; at += window)
    look_again(read(at, std::min(window, count - at)));
}

std::uint32_t CountSurvey::named_tokens(std::uint64_t step) const {
  return step < steps_.size() ? steps_[step].num_tokens : 0;
}

// Whether top_k is what every token chose.
void CountSurvey::look(const StepCounts& w) {
  for (Index s = 0; s < w.cells.rows(); ++s) {
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const TraceLayer& model = header_.layers[l];
      const auto counts = w.of(s, Index(l), model.experts);
      const bool whole = model.top_k == 0 || sum(counts) % model.top_k == 0;
      if (whole || is_negative(counts))
        continue;
      layer_[l].choices = 0;
      if (layer_[l].broken++ == 0)
        layer_[l].first_broken = w.first + std::uint64_t(s);
    }
  }
}

void CountSurvey::look_again(const StepCounts& w) {
  for (Index s = 0; s < w.cells.rows(); ++s) {
    const std::uint64_t step = w.first + std::uint64_t(s);
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const auto counts = w.of(s, Index(l), header_.layers[l].experts);
      if (possible(counts, step, Index(l))) {
        const std::int64_t assignments = sum(counts);
        const std::int64_t tokens = this->tokens(assignments, step, Index(l));
        layer_[l].assignments += assignments;
        layer_[l].tokens = tokens < 0 || layer_[l].tokens < 0 ? -1 : layer_[l].tokens + tokens;
        layer_[l].steps += assignments > 0;
      } else {
        (is_negative(counts) ? negative_ : crowded_).seen(step, Index(l));
      }
    }
  }
}

bool CountSurvey::possible(std::span<const std::uint32_t> counts, std::uint64_t step,
                           Index layer) const {
  if (is_negative(counts))
    return false;
  const std::int64_t all = sum(counts);
  const std::int64_t most = counts.empty() ? 0 : *std::ranges::max_element(counts);
  const std::int64_t tokens = this->tokens(all, step, layer);
  const int k = header_.layers[std::size_t(layer)].top_k;
  return tokens < 0 || (most <= tokens && (k == 0 || all <= tokens * k));
}

std::int64_t CountSurvey::tokens(std::int64_t assignments, std::uint64_t step, Index layer) const {
  if (const std::uint32_t named = named_tokens(step); named > 0)
    return named;
  const int k = layer_[std::size_t(layer)].choices;
  return k > 0 ? assignments / k : assignments == 0 ? 0 : -1;
}

std::uint64_t CountSurvey::possible_cells() const {
  std::uint64_t out = 0;
  for (const CountedLayer& l : layer_)
    out += l.steps;
  return out;
}

std::string named_layers(const TraceHeader& h, const std::vector<std::size_t>& layers) {
  if (layers.size() == h.layers.size())
    return "every MoE layer";
  std::vector<std::string> numbers;
  for (const std::size_t l : layers)
    numbers.push_back(concat(h.layers[l].index));
  return concat(layers.size() == 1 ? "MoE layer " : "MoE layers ", join(numbers));
}

std::string CountSurvey::undivided() const {
  std::vector<std::size_t> broken;
  std::uint64_t times = 0;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    if (layer_[l].broken == 0 || layer_[l].tokens >= 0)
      continue;
    broken.push_back(l);
    times += layer_[l].broken;
  }
  if (broken.empty() || header_.capture_point == "post_capacity")
    return "";
  return concat("top_k does not divide the assignments of ", named_layers(header_, broken), " (",
                times, times == 1 ? " time" : " times",
                "): some tokens chose fewer experts, or top_k is another");
}

std::vector<std::string> CountSurvey::findings() const {
  std::vector<std::string> out;
  const auto add = [&](const OddCounts& odd, const char* what) {
    if (odd.cells > 0) {
      out.push_back(fmt::format("{} counts of a step in a layer {} (first: row {}, MoE layer {})",
                                odd.cells, what, odd.first_step, odd.first_layer));
    }
  };
  add(negative_, negative_counts);
  add(crowded_, crowded_counts);
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    if (layer_[l].steps == 0)
      out.push_back(fmt::format("MoE layer {} has no count in any step", l));
  }
  return out;
}

}  // namespace moe
