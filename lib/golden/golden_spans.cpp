// Causal attention in which rows of one picture see each other, by the backend's own operation.
#include <cmath>

#include "lib/backend/backend.h"
#include "lib/golden/golden_modal.h"
#include "lib/golden/golden_numbers.h"

namespace moe {
namespace {

// First rows of the sequences; rows of a sequence follow each other.
std::vector<Index> starts_of(const std::vector<std::int64_t>& sequence) {
  std::vector<Index> out{0};
  for (std::size_t t = 1; t < sequence.size(); ++t) {
    if (sequence[t] != sequence[t - 1])
      out.push_back(Index(t));
  }
  out.push_back(Index(sequence.size()));
  return out;
}

// One behind the last row that each sees, counted in its sequence.
std::vector<Index> lasts_of(const std::vector<std::int64_t>& span, std::span<const Index> start) {
  std::vector<Index> out;
  for (std::size_t s = 0; s + 1 < start.size(); ++s) {
    for (Index t = start[s]; t < start[s + 1]; ++t) {
      Index behind = t + 1;
      const std::int64_t own = span[std::size_t(t)];
      while (own >= 0 && behind < start[s + 1] && span[std::size_t(behind)] == own)
        ++behind;
      out.push_back(behind - start[s]);
    }
  }
  return out;
}

// What the file has, and sizes.
class SpanCase {
 public:
  explicit SpanCase(const GoldenFile& file)
      : file_(file),
        backend_(make_reference<double>()),
        heads_(int(file.integer("heads"))),
        kv_heads_(int(file.integer("kv_heads"))),
        start_(starts_of(file.integers("input/sequence").values)),
        last_(lasts_of(file.integers("input/span").values, start_)) {
    const auto dims = file.reals("input/q").dims;
    if (dims.size() != 3 || dims[0] != start_.back() || dims[1] != heads_)
      throw Error(Exit::input, "input/q is not (rows, heads, numbers of a head)");
    head_dim_ = dims[2];
  }
  void compare(Comparison& out) const {
    const AttentionShape shape{.heads = heads_,
                               .kv_heads = kv_heads_,
                               .head_dim = int(head_dim_),
                               .scale = 1 / std::sqrt(double(head_dim_)),
                               .query_start = start_,
                               .key_start = start_};
    const KeyRule rule{.last = last_};
    const Array<double> q = read("input/q", heads_);
    const Array<double> k = read("input/k", kv_heads_);
    const Array<double> v = read("input/v", kv_heads_);
    const Array<double> dy = read("input/grad_y", heads_);
    Array<double> y = like(q);
    Array<double> lse(*backend_, q.rows(), heads_);
    backend_->biased_attention(q.view(), k.view(), v.view(), {}, shape, rule, y.view(), lse.view());
    Array<double> dq = like(q);
    Array<double> dk = like(k);
    Array<double> dv = like(v);
    backend_->biased_attention_backward(q.view(), k.view(), v.view(), {}, y.view(), lse.view(),
                                        dy.view(), shape, rule, dq.view(), dk.view(), dv.view(),
                                        {});
    hold(out, "y", y);
    hold(out, "lse", lse);
    hold(out, "grad/q", dq);
    hold(out, "grad/k", dk);
    hold(out, "grad/v", dv);
  }

 private:
  Array<double> read(const char* name, int of_heads) const {
    const Matrix<double> m =
        golden::numbers<double>(file_, name, start_.back(), of_heads * head_dim_);
    return {*backend_, m.view()};
  }
  Array<double> like(const Array<double>& a) const {
    return {*backend_, a.rows(), a.cols()};
  }
  static void hold(Comparison& out, const char* name, const Array<double>& a) {
    const Matrix<double> ours = a.to_host();
    out.reals(name, ours.flat());
  }

  const GoldenFile& file_;
  std::unique_ptr<Backend<double>> backend_;
  int heads_, kv_heads_;
  Index head_dim_ = 0;
  std::vector<Index> start_, last_;
};

}  // namespace

void run_golden_spans(const GoldenFile& file, Comparison& out) {
  SpanCase(file).compare(out);
}

}  // namespace moe
