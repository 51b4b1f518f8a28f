#include "lib/edit/quantise.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// All tensors of one expert, and what they cost in each way to store them; the last way is as it
// is.
struct Candidate {
  std::size_t layer = 0;  // among the MoE layers
  int layer_number = 0, expert = 0;
  std::vector<const ExpertTensor*> tensors;
  std::vector<double> bytes, cost;  // by way
  std::size_t way = 0;              // chosen
};

double squared_error(const ExpertTensor& t, const FewBitsFormat& f) {
  Matrix<float> numbers(t.rows, t.cols);
  t.parameter->read(t.first, numbers.view());
  Matrix<float> rounded = numbers;
  round_to(f, rounded.view());
  double error = 0;
  double size = 0;
  for (Index i = 0; i < numbers.size(); ++i) {
    const double x = double(numbers.data()[i]);
    const double d = x - double(rounded.data()[i]);
    error += d * d;
    size += x * x;
  }
  return size > 0 ? error / size : 0;
}

std::vector<Candidate> candidates(Decoder<float>& model, const std::vector<ExpertTensor>& tensors) {
  std::map<int, std::size_t> place;
  for (const ExpertTensor& t : tensors)
    place.emplace(t.layer, 0);
  std::size_t next = 0;
  for (auto& [layer, at] : place)
    at = next++;
  std::map<std::pair<int, int>, Candidate> by_name;
  for (const ExpertTensor& t : tensors) {
    Candidate& c = by_name[{t.layer, t.expert}];
    c.layer = place.at(t.layer);
    c.layer_number = model.layer_of(int(c.layer));
    c.expert = t.expert;
    c.tensors.push_back(&t);
  }
  std::vector<Candidate> out;
  for (auto& [name, c] : by_name)
    out.push_back(std::move(c));
  return out;
}

void refuse_unfit(const std::vector<ExpertTensor>& tensors,
                  const std::vector<FewBitsFormat>& formats) {
  if (tensors.empty()) {
    throw Error(Exit::usage, "a dense model has no experts that could be quantised")
        .hint("a model with MoE layers");
  }
  for (const ExpertTensor& t : tensors) {
    for (const FewBitsFormat& f : formats) {
      if (const std::string why = cannot_hold(f, t.rows, t.cols); !why.empty())
        throw Error(Exit::usage, concat("'", t.tensor, "' cannot be ", text_of(f), ": ", why))
            .hint("another format, or another block=");
    }
  }
}

void weigh(std::vector<Candidate>& all, const QuantiseOptions& o, const ExpertScores& scores,
           const std::function<Index(const std::string&)>& bytes_of_number) {
  for (Candidate& c : all) {
    const double score = scores.empty() ? 1 : scores.at(c.layer).at(std::size_t(c.expert));
    for (const FewBitsFormat& f : o.formats) {
      double bytes = 0;
      double cost = 0;
      for (const ExpertTensor* t : c.tensors) {
        bytes += double(bytes_of(f, t->rows, t->cols));
        cost += o.bytes > 0 ? score * squared_error(*t, f) : 0;
      }
      c.bytes.push_back(bytes);
      c.cost.push_back(cost);
    }
    double bytes = 0;
    for (const ExpertTensor* t : c.tensors)
      bytes += double(bytes_of_number(t->tensor) * t->rows * t->cols);
    c.bytes.push_back(bytes);
    c.cost.push_back(0);
  }
}

// The highest scores stay as they are; ties: the lower layer, then the lower expert.
void keep_highest(std::vector<Candidate>& all, double share, const ExpertScores& scores) {
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater<>{}, [&](std::size_t i) {
    return scores.at(all[i].layer).at(std::size_t(all[i].expert));
  });
  const auto kept = std::size_t(std::llround(share * double(all.size())));
  for (std::size_t i = 0; i < kept; ++i)
    all[order[i]].way = all[order[i]].bytes.size() - 1;
}

// One step of an expert to a larger way to store it.
struct Step {
  std::size_t expert, to;
  double bytes, saved;
};

// Steps along the lower convex hull of (bytes, cost), so that each saves less a byte than the one
// before.
void add_steps(std::vector<Step>& out, std::size_t expert, Candidate& c) {
  std::vector<std::size_t> ways(c.bytes.size());
  std::iota(ways.begin(), ways.end(), std::size_t{0});
  std::ranges::stable_sort(ways, {},
                           [&](std::size_t w) { return std::pair(c.bytes[w], c.cost[w]); });
  const auto saves = [&](std::size_t a, std::size_t b) {
    return (c.cost[a] - c.cost[b]) / (c.bytes[b] - c.bytes[a]);
  };
  std::vector<std::size_t> hull;
  for (const std::size_t w : ways) {
    if (!hull.empty() && (c.bytes[w] <= c.bytes[hull.back()] || c.cost[w] >= c.cost[hull.back()]))
      continue;
    while (hull.size() > 1 && saves(hull[hull.size() - 2], hull.back()) <= saves(hull.back(), w))
      hull.pop_back();
    hull.push_back(w);
  }
  c.way = hull.front();
  for (std::size_t i = 1; i < hull.size(); ++i) {
    out.push_back({expert, hull[i], c.bytes[hull[i]] - c.bytes[hull[i - 1]],
                   c.cost[hull[i - 1]] - c.cost[hull[i]]});
  }
}

void choose_under(std::vector<Candidate>& all, double limit) {
  std::vector<Step> steps;
  double bytes = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    add_steps(steps, i, all[i]);
    bytes += all[i].bytes[all[i].way];
  }
  if (bytes > limit) {
    throw Error(Exit::usage,
                fmt::format("the smallest format takes {:.0f} bytes, more than the {:.0f} "
                            "that --bytes leaves",
                            bytes, limit))
        .hint("a larger --bytes, or a smaller format in experts=");
  }
  std::ranges::stable_sort(steps, std::greater<>{},
                           [](const Step& s) { return s.saved / s.bytes; });
  std::set<std::size_t> stopped;  // an expert takes its steps in turn
  for (const Step& s : steps) {
    if (stopped.contains(s.expert))
      continue;
    if (bytes + s.bytes > limit) {
      stopped.insert(s.expert);
      continue;
    }
    all[s.expert].way = s.to;
    bytes += s.bytes;
  }
}

std::string name_of_way(const QuantiseOptions& o, std::size_t way) {
  return way < o.formats.size() ? text_of(o.formats[way]) : "as it was";
}

// How many experts of each layer are stored in which way.
std::vector<std::string> said(const std::vector<Candidate>& all, const QuantiseOptions& o) {
  std::map<int, std::vector<int>> count;
  for (const Candidate& c : all) {
    auto& of = count[c.layer_number];
    of.resize(o.formats.size() + 1);
    ++of[c.way];
  }
  std::vector<std::string> out;
  for (const auto& [layer, ways] : count) {
    std::vector<std::string> words;
    for (std::size_t w = 0; w < ways.size(); ++w) {
      if (ways[w] > 0)
        words.push_back(concat(ways[w], " ", name_of_way(o, w)));
    }
    out.push_back(concat("layer ", layer, ": ", join(words)));
  }
  return out;
}

double bytes_as_they_were(const std::vector<Candidate>& all) {
  return std::accumulate(all.begin(), all.end(), 0.0,
                         [](double sum, const Candidate& c) { return sum + c.bytes.back(); });
}

Quantisation chosen(const std::vector<Candidate>& all, const QuantiseOptions& o) {
  Quantisation out;
  double after = 0;
  for (const Candidate& c : all) {
    after += c.bytes[c.way];
    for (const ExpertTensor* t : c.tensors) {
      if (c.way < o.formats.size())
        out.of[t->tensor] = o.formats[c.way];
    }
  }
  out.before = Index(bytes_as_they_were(all));
  out.after = Index(after);
  out.changes = said(all, o);
  return out;
}

}  // namespace

Quantisation quantise(Decoder<float>& model, const std::string& family, const QuantiseOptions& o,
                      const ExpertScores& scores,
                      const std::function<Index(const std::string&)>& bytes_of_number) {
  const std::vector<ExpertTensor> tensors = expert_tensors(model, family);
  refuse_unfit(tensors, o.formats);
  std::vector<Candidate> all = candidates(model, tensors);
  weigh(all, o, scores, bytes_of_number);
  const double before = bytes_as_they_were(all);
  if (o.bytes > 0)
    choose_under(all, o.bytes * before);
  else if (o.keep > 0)
    keep_highest(all, o.keep, scores);
  return chosen(all, o);
}

}  // namespace moe
