// What a router gets: the products that the layer computes for it, the batch, and draws that are
// given instead of made.
#pragma once
#include <string>
#include <vector>

#include "lib/core/batch.h"
#include "lib/core/matrix.h"

namespace moe {

class Rng;

// A product x·Wᵀ that the layer computes on the device for the router: parameter "router.NAME"
// (rows, H).
struct Projection {
  std::string name = "weight";
  Index rows = 0;
  bool tempered = true;  // jittered and divided by the temperature: a logit; false = plain W x
  bool zero_init = false;
  // Cosine: z = a (u.w)/(|u||w|) with |v| = sqrt(v.v + 1e-6) and a learned number a, parameter
  // "router.<scale_name>", that starts at scale_start; u is x, or P x with the parameter
  // "router.project" (through, H).
  bool cosine = false;
  std::string scale_name = "scale";
  double scale_start = 1;
  Index through = 0;
};

// Draws that are given instead of made, so that a layer is a pure function (golden files, tests,
// replays).
struct GivenNoise {
  Matrix<double> noise;   // what the router draws: its help says the shape
  Matrix<double> jitter;  // (T,H) factors of the router's input
  Matrix<double> drop;    // (T,K) numbers of the capacity rule `random`
  Matrix<int> table;      // (V,K) experts of each token id, for `hash`
  Matrix<int> expert;     // (T,K) the choices themselves, where RouterFacts::takes_routes
};

struct RouterInput {
  // one a projection, (T,rows): z = (W(x*u) + b)/tau, or plain W x
  std::vector<Matrix<double>> scores;
  const Batch& batch;  // token ids, sequences, which tokens are valid
  bool training = false;
  Rng* rng = nullptr;  // null only where `given` holds what is needed
  const GivenNoise* given = nullptr;

  Index tokens() const {
    return batch.tokens();
  }
  bool noise_given() const {
    return given && !given->noise.empty();
  }
  bool routes_given() const {
    return given && !given->expert.empty();
  }
};

}  // namespace moe
