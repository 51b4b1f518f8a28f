// Routers: who computes what. Host code in double, so an idea is one file and runs on every
// backend; a router decides for the whole batch and gives the gradient of its decision. Equations:
// docs of each router name the section of the paper.
#pragma once
#include <memory>
#include <optional>

#include "lib/core/batch.h"
#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/rng.h"
#include "lib/core/routing.h"
#include "lib/core/spec.h"
#include "lib/core/top_k.h"
#include "lib/router/cooling.h"

namespace moe {

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
  Matrix<int> expert;     // (T,K) the choices themselves, for routers with takes_routes()
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

// What one MoE layer did with a run of tokens, from a trace: for the router `replay`.
struct Recorded {
  std::string file;
  std::shared_ptr<const std::vector<std::uint32_t>> token;  // (N) ids, all layers the same
  Matrix<int> expert;                                       // (N,K)
  Matrix<float> weight;                                     // (N,K)
  // (N) in its sequence; null = not compared
  std::shared_ptr<const std::vector<std::uint32_t>> position = nullptr;
};

// numbers that training moves without a gradient, by name
using State = std::pair<std::string, std::span<double>>;
// something a router thought on the way, by name
using Detail = std::pair<std::string, Matrix<double>>;

class Router {
 public:
  explicit Router(int experts) : experts_(experts) {}
  virtual ~Router() = default;

  int experts() const {
    return experts_;
  }
  virtual int choices() const = 0;  // K: columns of Routing::expert
  virtual std::vector<Projection> projections() const = 0;
  // Tokens that are not valid get ids -1, weights 0 and zero rows of logits and scores.
  virtual Routing route(const RouterInput&) = 0;
  // What balance losses use as probabilities, rows summing to 1: softmax p; sigmoid s/sum s; joint
  // probabilities. (T,E)
  virtual Matrix<double> probabilities(const RouterInput&, const Routing& r) const {
    return r.score;
  }
  // Adds to dscores[i] (same shapes as in.scores) the gradient that arrives by the combine weights,
  // dweight (T,K), and by the probabilities, dprob (T,E) (either may be empty).
  virtual void backward(const RouterInput&, const Routing&, const Matrix<double>& dweight,
                        const Matrix<double>& dprob,
                        std::vector<Matrix<double>>& dscores) const = 0;
  // beta of equations.md 2.1-2.3, (E): used in the selection only, moved by the balancer `bias`;
  // empty = this router has none.
  virtual std::span<double> correction_bias() {
    return {};
  }
  // What a checkpoint must hold besides parameters.
  virtual std::vector<State> state() {
    return correction_bias().empty() ? std::vector<State>{}
                                     : std::vector<State>{{"correction_bias", correction_bias()}};
  }
  // false: a token's routing depends on later tokens
  virtual bool causal() const {
    return true;
  }
  // sinkhorn and base balance a batch in training only
  virtual bool causal_in_training() const {
    return causal();
  }
  // loads are bounded already: no capacity rule fits
  virtual bool limits_itself() const {
    return false;
  }
  // Mixing routers fill Routing::dispatch and mix, slots() rows; their backward is mix_backward,
  // from the gradients of both (T,N).
  virtual Index slots() const {
    return 0;
  }  // N; 0 = this router chooses
  virtual void mix_backward(const RouterInput&, const Routing&, const Matrix<double>& /*ddispatch*/,
                            const Matrix<double>& /*dmix*/,
                            std::vector<Matrix<double>>& /*dscores*/) const {}
  // Its whole rule at the present temperature, where a device can follow it without the host; empty
  // = it decides here.
  virtual std::optional<TopK> top_k() const {
    return {};
  }
  // scores[1] is the softplus of the noise's size
  virtual bool learns_noise() const {
    return false;
  }
  // For the capacity rule `reroute`: what ranks the experts of token t (-inf = never), and the
  // weight one of them would have, a s / D with the D of the original choice. Its backward gets
  // dweight (T,2K), see Capacity::backward.
  virtual bool reroutable() const {
    return false;
  }
  virtual void rank(const Routing&, Index /*t*/, std::span<double> /*key (E)*/) const {}
  virtual double weight_of(const Routing&, Index /*t*/, int /*expert*/) const {
    return 0;
  }
  // Experts (1 = excluded) that have weight 0 and do not count where weights are normalised;
  // equations.md 2.15.
  virtual void exclude(const std::vector<std::uint8_t>& /*(E)*/) {
    throw Error(Exit::usage,
                "zc_exclude_zero=1 changes the weights of the routers softmax and sigmoid, and "
                "this router has others")
        .hint("zc_exclude_zero=0");
  }
  // May choose what GivenNoise::expert says and weigh it by its own rule.
  virtual bool takes_routes() const {
    return false;
  }
  // rank() gives every expert a finite key
  virtual bool ranks_all() const {
    return false;
  }
  // A table of token ids from how often each stands in the training text; state() holds it once the
  // vocabulary is known.
  virtual bool wants_counts() const {
    return false;
  }
  virtual void vocabulary(int /*V*/) {}
  virtual void learn(std::span<const std::int64_t> /*counts (V)*/) {}
  // Routes from a file: recording() names it, replay() brings its rows, rewind() starts them again.
  virtual std::string recording() const {
    return {};
  }
  virtual void replay(Recorded) {}
  virtual void rewind() {}
  virtual std::vector<Detail> details(const RouterInput&, const Routing&) const {
    return {};
  }

  double temperature = 1;  // of tempered projections, now
  Cooling cooling;         // where it comes from
  void cool(double done /*share of the training run*/) {
    temperature = cooling.moves() ? cooling.at(done) : temperature;
  }
  double jitter = 0;  // their input is multiplied by uniform [1-jitter, 1+jitter] in training

 protected:
  int experts_;
};

using MakeRouter = std::unique_ptr<Router>(Spec&, int experts);
const Registry<MakeRouter>& routers();
// refuses unknown names and options, k > E
std::unique_ptr<Router> make_router(const std::string& spec, int experts);
// The same, and the spec with every default filled in.
std::unique_ptr<Router> make_router(const std::string& spec, int experts, std::string& resolved);

}  // namespace moe
