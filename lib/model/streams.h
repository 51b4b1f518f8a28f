// Hyper-connections as DeepSeek-V4 has them (mHC, 2512.24880): n residual streams, which a branch
// reads as one row and mixes on its way back. Of a token's streams x (n,H), flat:
//   z = W rmsnorm(x) without weights, in parts of n, n and n*n numbers
//   pre = sigmoid(z1 s1 + b1) + eps, post = 2 sigmoid(z2 s2 + b2)
//   M = softmax of the rows of z3 s3 + b3, + eps; then columns, and (rounds - 1) times rows and
//       columns, are divided by their sums + eps
//   read: sum_i pre_i x_i;   back: y_j = post_j branch + sum_i M_ij x_i
// Behind the last layer the streams are read once more, by pre alone. Rows are worked on by the
// host; a device's numbers cross over.
#pragma once
#include <string>
#include <vector>

#include "lib/model/mixers/host_side.h"
#include "lib/model/model_parameter.h"

namespace moe {

template <class S>
struct StreamTape {
  Array<S> z;     // (T, m) W x, before the norm's factor; host memory
  Array<S> rstd;  // (T, 1) that factor
  Array<S> read;  // (T, H) what the branch's norm reads
  Array<S> out;   // (T, H) what the branch put out
};

// What a token makes of its streams.
struct StreamWeights {
  std::vector<double> pre, post;  // (n) pre with eps
  std::vector<double> soft, mix;  // (n,n) rows of the softmax, M
  std::vector<double> steps;      // what each half of a round read, one after the other

  // Sets mix from soft; `keep`: and steps.
  void balance(Index n, int rounds, double eps, bool keep);
};
// Of one token: its streams, what the branch put out, the gradient by the streams behind it.
template <class S>
struct StreamRow {
  const S *x, *out, *dy;
};

template <class S>
class HyperConnection {
 public:
  // Parameters name + "weight", "base", "scale", published + "fn", "base", "scale". reads_only:
  // behind the last layer.
  HyperConnection(const ModelConfig&, Backend<S>&, const std::string& name,
                  const std::string& published, bool reads_only);

  // x (T, n*H); sets tape.z, rstd and read
  void read(View<const S> x, StreamTape<S>&) const;
  // y (T, n*H) set, from tape.out
  void put_back(View<const S> x, const StreamTape<S>&, View<S> y) const;
  // dy: gradient by the streams behind the branch, in; what of it reaches those before, out. Sets
  // dbranch (T,H), and dz (T,m) in host memory.
  void put_back_backward(View<const S> x, const StreamTape<S>&, View<S> dy, View<S> dbranch,
                         Array<S>& dz) const;
  // dread (T,H): gradient by tape.read. dx (T, n*H) += gradient; dz as put_back_backward left it,
  // or zeros.
  void read_backward(View<const S> x, const StreamTape<S>&, View<const S> dread, Array<S> dz,
                     View<S> dx);
  Array<S> no_gradient(const StreamTape<S>& t) const {
    return side_.zeros(t.z.rows(), t.z.cols());
  }
  void collect(std::vector<ModelParameter<S>>& all);

 private:
  StreamWeights weights(const StreamTape<S>&, Index row, View<const S> base,
                        View<const S> scale) const;
  void mixing_backward(const StreamWeights&, std::vector<double>& dm) const;
  void row_backward(const StreamWeights&, const StreamRow<S>&, S* dx, S* dout, S* dz) const;
  void pre_backward(const StreamWeights&, const S* x, const S* dread, S* dz, S* dx) const;
  double scale_backward(View<const S> scale, const S* z, double rstd, S* dz, S* sum) const;

  const ModelConfig& config_;
  HostSide<S> side_;
  Index n_, hidden_;
  bool reads_only_;
  std::string published_;
  Parameter<S> weight_, base_, scale_;
};

extern template class HyperConnection<float>;
extern template class HyperConnection<double>;

// Every stream is the embedding: y (T, n*H) from x (T, H), and back the sum of dy in dx.
template <class S>
Array<S> as_streams(Backend<S>&, View<const S> x, int streams);
template <class S>
Array<S> sum_of_streams(Backend<S>&, View<const S> dy, int streams);

}  // namespace moe
