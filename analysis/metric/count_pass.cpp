#include "analysis/metric/count_pass.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {

void add_tokens(std::int64_t& sum, std::int64_t tokens) {
  sum = sum < 0 || tokens < 0 ? -1 : sum + tokens;
}

CountPass::CountPass(const TraceSource& trace)
    : trace_(trace),
      survey_(trace.header(), trace.steps(), trace.count_steps(),
              [this](std::uint64_t first, std::uint64_t count) { return read(first, count); }) {
  if (survey_.possible_cells() > 0)
    return;
  std::vector<std::string> why;
  odd_counts(why);
  throw Error(Exit::input,
              concat("nothing in the trace can be routing: ",
                     why.empty() ? concat("every count of its ", trace.count_steps(), " steps is 0")
                                 : join(why, "; ")))
      .hint("moe verify on the trace lists what is wrong; record it again");
}

StepCounts CountPass::read(std::uint64_t first, std::uint64_t count) const {
  return {first, trace_.counts(first, count), trace_.header().max_experts()};
}

CountWindow CountPass::window(std::uint64_t first, std::uint64_t count) const {
  CountWindow w{read(first, count), {}, {}, {}};
  const auto& layers = trace_.header().layers;
  for (const TraceLayer& l : layers)
    w.experts.push_back(l.experts);
  w.possible = Matrix<std::uint8_t>(w.count(), Index(layers.size()));
  w.tokens = Matrix<std::int64_t>(w.count(), Index(layers.size()));
  for (Index s = 0; s < w.count(); ++s) {
    for (Index l = 0; l < Index(layers.size()); ++l) {
      const auto counts = w.steps.of(s, l, w.experts[l]);
      const std::uint64_t step = first + std::uint64_t(s);
      std::int64_t all = 0;
      for (const std::uint32_t c : counts)
        all += c;
      w.possible(s, l) = survey_.possible(counts, step, l);
      w.tokens(s, l) = w.possible(s, l) ? survey_.tokens(all, step, l) : 0;
    }
  }
  return w;
}

void CountPass::run(const std::vector<Metric*>& all, const AnalyzeOptions& o) const {
  const Index layers = Index(trace_.header().layers.size());
  const std::uint64_t steps = trace_.count_steps();
  const std::uint64_t at_once =
      std::min(count_window(trace_.header()), std::max<std::uint64_t>(1, o.window));
  for (std::uint64_t first = 0; first < steps; first += at_once) {
    const CountWindow w = window(first, std::min(at_once, steps - first));
    parallel_for(Index(all.size()) * layers, 1, [&](Index from, Index to) {
      for (Index p = from; p < to; ++p)
        all[p / layers]->observe_counts(w, p % layers);
    });
  }
  for (Metric* m : all)
    m->finish();
}

void CountPass::odd_counts(std::vector<std::string>& out) const {
  const std::uint64_t all = trace_.count_steps() * trace_.header().layers.size();
  const auto sentence = [&](const OddCounts& odd, const char* what) {
    return concat(odd.cells, " of ", all, " counts of a step in a layer ", what, " (first: step ",
                  trace_.steps()[odd.first_step].step, ", MoE layer ",
                  trace_.header().layers[odd.first_layer].index, "): left out of every figure");
  };
  if (const OddCounts& odd = survey_.negative(); odd.cells > 0)
    out.push_back(sentence(odd, negative_counts));
  if (const OddCounts& odd = survey_.crowded(); odd.cells > 0) {
    out.push_back(sentence(odd, crowded_counts) +
                  ". Zeros in the place of routing that was not recorded look like this");
  }
}

// Why, and what follows from it.
void CountPass::unknown_tokens(std::vector<std::string>& out) const {
  const TraceHeader& h = trace_.header();
  const bool behind = h.capture_point == "post_capacity";
  std::vector<std::size_t> untold;
  for (std::size_t l = 0; l < h.layers.size(); ++l) {
    const CountedLayer& layer = survey_.layers()[l];
    if (layer.tokens < 0 && (behind || layer.broken == 0))
      untold.push_back(l);
  }
  const std::string undivided = survey_.undivided();
  if (untold.empty() && undivided.empty())
    return;
  std::string why;
  if (behind) {
    why = "capacity took some choices before they were counted";
  } else if (!undivided.empty()) {
    why = undivided;
  } else {
    why = concat("how many experts a token chose (top_k) is not recorded",
                 untold.size() == h.layers.size() ? "" : concat(" for ", named_layers(h, untold)));
  }
  out.push_back(concat(
      why,
      ". So the number of tokens is not known: figures that need it have no value of random "
      "routing, and lights are judged as if every token had chosen one expert, which is where "
      "random routing is least even"));
}

std::vector<std::string> CountPass::remarks(const std::vector<std::string>& computed,
                                            const std::vector<std::string>& left_out) const {
  std::vector<std::string> out;
  odd_counts(out);
  std::string what =
      "the trace holds no tokens, only how many of them each expert took in each step";
  if (!left_out.empty()) {
    what += concat(": ", join(left_out), left_out.size() == 1 ? " needs" : " need", " tokens and ",
                   left_out.size() == 1 ? "is" : "are", " left out");
  }
  out.push_back(what);
  if (trace_.header().capture_point == "post_capacity") {
    out.push_back(
        "the counts were taken behind capacity: what it dropped is in none of them, and loads look "
        "more even than the router made them");
  }
  if (trace_.header().capture_point == "physical") {
    out.push_back(
        "the counts are of physical experts: copies of one expert count apart, as if they were "
        "several");
  }
  if (!computed.empty())
    unknown_tokens(out);
  return out;
}

std::string CountPass::size() const {
  std::vector<std::int64_t> assignments, tokens;
  for (const CountedLayer& l : survey_.layers()) {
    assignments.push_back(l.assignments);
    tokens.push_back(l.tokens);
  }
  const auto [least, most] = std::ranges::minmax(assignments);
  const auto [fewest, many] = std::ranges::minmax(tokens);
  return concat(trace_.count_steps(), trace_.count_steps() == 1 ? " step, " : " steps, ",
                least == most ? concat(most) : concat(least, " to ", most),
                " assignments in a MoE layer",
                fewest == many && many > 0 ? concat(" (", many, " tokens)") : "");
}

void forget_unknown_chance(Report& r) {
  for (Table& t : r.tables) {
    for (Column& c : t.columns) {
      if (!std::ranges::all_of(c.chance, [](double v) { return std::isnan(v); }))
        continue;
      c.chance.clear();
      c.chance_spread.clear();
    }
  }
}

}  // namespace moe
