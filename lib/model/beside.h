// Experts and a dense feed-forward side by side in one layer, see DenseBeside in config.h. The
// decoder owns both; here is what they read and how their outputs come together.
#pragma once
#include <string>
#include <vector>

#include "lib/layer/moe_layer.h"
#include "lib/model/norm.h"

namespace moe {

struct ModelConfig;

template <class S>
class Beside {
 public:
  struct Tape {
    Array<S> experts_in, experts_rstd, router_in, router_rstd;      // of norms of the plain rows
    Array<S> dense_out, dense_rstd, experts_out, experts_out_rstd;  // before the norms behind
  };
  // The two bodies in one pass, with what they keep.
  struct Bodies {
    const Pass& pass;
    FeedForward<S>& dense;
    MoeLayer<S>& moe;
    typename FeedForward<S>::Tape& dense_tape;
    MoeTape<S>& moe_tape;
  };
  Beside(const ModelConfig&, Backend<S>&, const std::string& at);

  // normed: y = norm(dense(read)) + norm(experts(norm(plain))). shortcut: y = dense(read), and
  // `late` = experts(read), which is added behind the next layer. All (T,H).
  void forward(const Bodies&, View<const S> plain, View<const S> read, View<S> y /*set*/, Tape&,
               Array<S>& late);
  // dlate: gradient of `late`, empty where there is none. Sets dread, adds to dplain.
  void backward(const Bodies&, const Tape&, View<const S> plain, View<const S> read,
                View<const S> dy, View<const S> dlate, View<S> dread, View<S> dplain,
                const GateGradients&);
  std::vector<Norm<S>*> norms();

 private:
  void experts_backward(const Bodies&, const Tape&, View<const S> plain, View<const S> dout,
                        View<S> dplain, const GateGradients&);

  Backend<S>& backend_;
  bool normed_;
  double router_scale_;  // of what the router reads: H^-0.5
  // of outputs, of what the experts read, of what the router reads
  Norm<S> dense_after_, experts_after_, experts_norm_, router_norm_;
};

}  // namespace moe
