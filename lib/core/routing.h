// Who computes what, for one batch in one layer. The router makes it, capacity cuts it, the layer
// obeys it, the trace stores it, every metric reads it. Host values in double: routing is decided
// once, by one definition, for every backend.
#pragma once
#include <algorithm>

#include "lib/core/matrix.h"

namespace moe {

struct Routing {
  Matrix<int> expert;  // (T,K) the choices in key-descending order, before capacity; -1 = none
  // (T,K) combine weights of the choices, before any drop; 0 where there is none
  Matrix<double> weight;
  // (T,E) z, after bias, jitter and temperature; empty for routers without scores
  Matrix<double> logits;
  // (T,E) s, what the router believed (softmax p, sigmoid, ...); empty for routers without scores
  Matrix<double> score;
  // (T,E) 1 = the row may not choose this expert, so that its score is 0; empty = no row is barred
  Matrix<std::uint8_t> barred;
  // (T,K) what is computed: -1 = dropped, another id = rerouted; empty = same as expert
  Matrix<int> kept;
  Matrix<double> combine;  // (T,K) weights after drops; empty = same as weight
  // (T,K) weight of a slot's new expert where it was rerouted, else weight; empty = no slot could
  // be
  Matrix<double> moved;
  // (T,E) standard normal draws of a router that learns its noise; empty = none were drawn
  Matrix<double> noise;
  Matrix<double> sigma;     // (T,E) their size
  Matrix<double> dispatch;  // (T,N) of a router that mixes tokens into N slots, expert by expert:
                            // what each slot takes of each token, columns sum to 1; empty = the
                            // router chooses. Then expert and weight are the K experts with the
                            // largest share in the token's output, for the trace
  Matrix<double> mix;       // (T,N) what each token's output takes of each slot, rows sum to 1

  Index tokens() const {
    return expert.rows();
  }
  std::span<const std::uint8_t> bars_of(Index t) const {  // (E) or empty
    return barred.empty() ? std::span<const std::uint8_t>{} : barred.row(t);
  }
  void clear_scores(Index t) {  // of a token that is not valid
    std::ranges::fill(logits.row(t), 0.0);
    std::ranges::fill(score.row(t), 0.0);
  }
  Index choices() const {
    return expert.cols();
  }
  const Matrix<int>& computed() const {
    return kept.empty() ? expert : kept;
  }
  const Matrix<double>& combined() const {
    return combine.empty() ? weight : combine;
  }
};

}  // namespace moe
