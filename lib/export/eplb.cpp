// Loads as solvers of placement take them: JSON [layers][experts], the weight of DeepSeek's EPLB
// (rebalance_experts) and LMDeploy's statistic; choices before capacity, summed over the rows, or
// over the steps of a trace that only counts.
#include <algorithm>

#include "lib/core/text.h"
#include "lib/export/rows.h"
#include "lib/export/text.h"
#include "lib/trace/step_counts.h"

namespace moe {
namespace {

class EplbJson final : public Exporter {
 public:
  ExportCarries carries() const override {
    return {.rows = false};
  }
  void write(ExportRows&, OutputFile&) const override;
};

using Counts = std::vector<std::vector<std::uint64_t>>;  // [layers][experts]

void count_rows(ExportRows& rows, Counts& counts) {
  rows.each(false, false, [&](const TraceRows& r) {
    for (std::size_t l = 0; l < r.layer.size(); ++l) {
      for (const int id : r.layer[l].expert.flat()) {
        if (id >= 0)
          ++counts[l][id];
      }
    }
  });
}

// Of a trace that only counts; steps that no router can have counted are left out.
void count_steps(ExportRows& rows, Counts& counts) {
  const TraceReader& reader = rows.reader();
  const TraceHeader& h = rows.header();
  const auto read = [&](std::uint64_t first, std::uint64_t count) {
    return StepCounts{first, reader.counts(first, count), h.max_experts()};
  };
  const std::uint64_t all = reader.count_steps();
  const CountSurvey survey(h, reader.steps(), all, read);
  for (const std::string& finding : survey.findings())
    rows.say(concat(finding, ": left out"));
  const std::uint64_t window = count_window(h);
  for (std::uint64_t first = 0; first < all; first += window) {
    const StepCounts steps = read(first, std::min(window, all - first));
    for (Index s = 0; s < steps.cells.rows(); ++s) {
      for (std::size_t l = 0; l < counts.size(); ++l) {
        const auto one = steps.of(s, Index(l), h.layers[l].experts);
        if (!survey.possible(one, first + std::uint64_t(s), Index(l)))
          continue;
        for (std::size_t e = 0; e < one.size(); ++e)
          counts[l][e] += one[e];
      }
    }
  }
}

void EplbJson::write(ExportRows& rows, OutputFile& file) const {
  const TraceHeader& h = rows.header();
  if (h.capture_point == "physical") {
    rows.refuse("names physical experts, replicas among them: a solver wants logical ones",
                "a trace of logical ids");
  }
  Counts counts;
  for (const TraceLayer& l : h.layers) {
    if (l.experts != h.layers[0].experts) {
      rows.refuse(concat("has ", h.layers[0].experts, " experts in layer ", h.layers[0].index,
                         " and ", l.experts, " in layer ", l.index,
                         ": counts [layers][experts] have as many in each"),
                  "moe export TRACE --to csv, and one solver's run for each kind of layer");
    }
    counts.emplace_back(std::size_t(l.experts));
  }
  if (rows.survey().tokens > 0)
    count_rows(rows, counts);
  else
    count_steps(rows, counts);
  if (rows.survey().dropped)
    rows.say("choices that capacity dropped are counted: loads are those before capacity");
  ExportText out(file);
  for (std::size_t l = 0; l < counts.size(); ++l) {
    out << (l == 0 ? "[[" : ",\n [");
    for (std::size_t e = 0; e < counts[l].size(); ++e) {
      if (e > 0)
        out << ", ";
      out << counts[l][e];
    }
    out << ']';
  }
  out << "]\n";
  out.flush();
}

}  // namespace

std::unique_ptr<Exporter> make_eplb_exporter() {
  return std::make_unique<EplbJson>();
}

}  // namespace moe
