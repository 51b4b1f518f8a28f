// Successive shortest paths: tokens come one by one, and each takes the cheapest chain of
// displacements (token to expert, another token of that expert to the next, ...) that ends where
// there is room. The chain is found among the E experts only, with the cheapest displacement of
// every pair of experts kept at hand, so a token costs about E^2 to E^3 steps, not T.
#include "lib/router/assignment.h"

#include <limits>

namespace moe {
namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();

class Assignment {
 public:
  explicit Assignment(View<const double> value)
      : value_(value),
        experts_(int(value.cols)),
        floor_(value.rows / value.cols),
        spare_(value.rows % value.cols),
        of_(std::size_t(value.rows), -1),
        held_(std::size_t(experts_)),
        move_(std::size_t(experts_) * std::size_t(experts_), {infinite, -1}) {}

  std::vector<int> run() {
    for (Index t = 0; t < value_.rows; ++t)
      add(t);
    return of_;
  }

 private:
  struct Move {
    double loss;
    Index token;
  };  // the cheapest token of one expert to another
  // token -1: `from` takes over the right to one more token
  struct Step {
    int from;
    Index token;
  };
  Move& move(int a, int b) {
    return move_[std::size_t(a) * std::size_t(experts_) + std::size_t(b)];
  }
  Index load(int e) const {
    return Index(held_[e].size());
  }
  bool has_room(int e) const {
    return load(e) < floor_ || (load(e) == floor_ && spare_ > 0);
  }

  void add(Index t) {
    const std::size_t n = std::size_t(experts_);
    std::vector<double> distance(n);
    std::vector<Step> step(n, {-1, t});
    for (int e = 0; e < experts_; ++e)
      distance[e] = -value_(t, e);
    // Bellman-Ford: displacements may gain, but no circle of them does
    for (bool better = true; better;) {
      better = false;
      for (int a = 0; a < experts_; ++a) {
        for (int b = 0; b < experts_; ++b) {
          if (a == b)
            continue;
          const bool hands_over = load(a) == floor_ && load(b) == floor_ + 1 && spare_ == 0;
          const Move m = hands_over && move(a, b).loss > 0 ? Move{0, -1} : move(a, b);
          const double d = distance[a] + m.loss;
          if (!(d < distance[b] - 1e-13) || on_path(step, a, b))
            continue;
          distance[b] = d;
          step[b] = {a, m.token};
          better = true;
        }
      }
    }
    int best = -1;
    for (int e = 0; e < experts_; ++e) {
      if (has_room(e) && (best < 0 || distance[e] < distance[best]))
        best = e;
    }
    if (load(best) == floor_)
      --spare_;
    follow(best, step, t);
  }
  // Whether b is among the experts before a: rounding must not make a path bite its tail.
  static bool on_path(const std::vector<Step>& step, int a, int b) {
    for (; a >= 0; a = step[a].from) {
      if (a == b)
        return true;
    }
    return false;
  }
  void follow(int e, const std::vector<Step>& step, Index t) {
    std::vector<int> changed;
    for (; e >= 0; e = step[e].from) {
      const Step s = step[e];
      changed.push_back(e);
      if (s.from < 0)
        place(t, e);
      else if (s.token >= 0)
        place(s.token, e);
    }
    for (const int a : changed)
      refresh(a);
  }
  void place(Index t, int e) {
    int& at = of_[t];
    if (at >= 0)
      std::erase(held_[at], t);
    at = e;
    held_[e].push_back(t);
  }
  void refresh(int a) {
    for (int b = 0; b < experts_; ++b) {
      move(a, b) = {infinite, -1};
      for (const Index t : held_[a]) {
        if (const double loss = value_(t, a) - value_(t, b); loss < move(a, b).loss)
          move(a, b) = {loss, t};
      }
    }
  }

  View<const double> value_;
  int experts_;
  // spare_: experts that may still take one more than floor_
  Index floor_, spare_;
  std::vector<int> of_;                   // (T) expert of each token; -1 = not yet
  std::vector<std::vector<Index>> held_;  // tokens of each expert
  std::vector<Move> move_;                // (E,E)
};

}  // namespace

std::vector<int> balanced_assignment(View<const double> value) {
  return Assignment(value).run();
}

}  // namespace moe
