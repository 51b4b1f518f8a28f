// check:of={X}: a backend that does everything twice, by X and by the definition on host copies,
// and stops at the first operation whose results differ, with its shapes and the first coordinate.
// For finding out where a new device or driver goes wrong.
#include <cmath>
#include <cstring>
#include <deque>
#include <tuple>
#include <utility>

#include "lib/backend/backend.h"
#include "lib/backend/difference.h"
#include "lib/core/error.h"

namespace moe {
namespace {

using In = View<const float>;
using Out = View<float>;

constexpr double allowed = 1e-7;  // squared error over squared size

// The arguments as X gets them: as they are.
struct Device {
  template <class T>
  const T& operator()(const T& value) {
    return value;
  }
  template <class T>
  T& out(const char*, T& value, Index = -1) {
    return value;
  }
  ExpertGrads<float> out(const ExpertGrads<float>& g) {
    return g;
  }
};

// The arguments as the definition gets them: host copies, made before anything is computed.
class Host {
 public:
  explicit Host(Backend<float>& of) : of_(of) {}

  In operator()(In v) {
    return copy(v);
  }
  View<const int> operator()(View<const int> v) {
    Matrix<int>& m = ints_.emplace_back(v.rows, v.cols);
    fetch(v.data, m.data(), v.size());
    return std::as_const(m).view();
  }
  Weight operator()(const Weight& w) {
    std::vector<std::byte>& bytes =
        bytes_.emplace_back(std::size_t(w.rows * w.cols * bytes_of(w.dtype)));
    if (!bytes.empty())
      of_.to_host(w.data, bytes.data(), bytes.size());
    return {bytes.data(), w.dtype, w.rows, w.cols};
  }
  const Plan& operator()(const Plan& p) {
    Plan& host = plans_.emplace_back();
    host.place = array<int>(p.place);
    host.offset = array<int>(p.offset);
    host.token = array<int>(p.token);
    host.choice = array<int>(p.choice);
    host.slots = p.slots;
    return host;
  }
  ExpertWeights<float> operator()(const ExpertWeights<float>& w) {
    return {w.activation,      (*this)(w.gate), (*this)(w.up),    (*this)(w.down),
            copy(w.gate_bias), copy(w.up_bias), copy(w.down_bias)};
  }
  const ExpertTape<float>& operator()(const ExpertTape<float>& t) {
    ExpertTape<float>& host = tapes_.emplace_back();
    host.gate = array<float>(t.gate);
    host.up = array<float>(t.up);
    return host;
  }
  const AttentionShape& operator()(const AttentionShape& a) {
    return a;
  }
  std::span<const Index> operator()(std::span<const Index> start) {
    return start;
  }

  // What the operation writes; only its first `rows` rows are defined where given.
  Out out(const char* name, Out v, Index rows = -1) {
    const Out host = copy(v);
    written_.push_back({name, v, host, rows < 0 ? v.rows : rows});
    return host;
  }
  ExpertGrads<float> out(const ExpertGrads<float>& g) {
    return {out("dgate", g.gate),       out("dup", g.up),
            out("ddown", g.down),       out("dgate_bias", g.gate_bias),
            out("dup_bias", g.up_bias), out("ddown_bias", g.down_bias)};
  }

  struct Written {
    const char* name;
    Out device, host;
    Index rows;
  };
  const std::vector<Written>& written() const {
    return written_;
  }

 private:
  template <class T>
  void fetch(const T* from, T* to, Index n) {
    if (n > 0)
      of_.to_host(from, to, std::size_t(n) * sizeof(T));
  }
  Out copy(In v) {
    Matrix<float>& m = floats_.emplace_back(v.rows, v.cols);
    fetch(v.data, m.data(), v.size());
    return m.view();
  }
  template <class T>
  Array<T> array(const Array<T>& a) {
    Array<T> host(*host_, a.rows(), a.cols());
    fetch(a.view().data, host.view().data, a.view().size());
    return host;
  }

  Backend<float>& of_;
  // declared before what lives in its memory
  std::unique_ptr<Backend<float>> host_ = make_reference<float>();
  std::deque<Matrix<float>> floats_;
  std::deque<Matrix<int>> ints_;
  std::deque<std::vector<std::byte>> bytes_;
  std::deque<Plan> plans_;
  std::deque<ExpertTape<float>> tapes_;
  std::vector<Written> written_;
};

// The first number that is clearly off, or else the one that is farthest off.
Difference first_of(In got, In want, Difference d) {
  double size = 0;
  for (const float v : want.flat())
    size += double(v) * double(v);
  const double typical = std::sqrt(size / double(want.size()));
  for (Index r = 0; r < want.rows; ++r) {
    for (Index c = 0; c < want.cols; ++c) {
      const double e = std::abs(double(got(r, c)) - double(want(r, c)));
      if (e <= 1e-4 * (typical + std::abs(double(want(r, c)))))
        continue;
      return {d.error, r, c, double(got(r, c)), double(want(r, c)), e};
    }
  }
  return d;
}

struct Call {  // an operation and the shapes it was given
  std::string text;
  template <class... A>
  explicit Call(const char* name, const A&... a) : text(name) {
    ((text += concat(" (", a.rows, ",", a.cols, ")")), ...);
  }
};

class Check : public Backend<float> {
 public:
  explicit Check(std::unique_ptr<Backend<float>> of) : of_(std::move(of)) {}

  std::string name() const override {
    return concat("check:of={", of_->name(), "}");
  }
  double rounding() const override {
    return of_->rounding();
  }
  std::string notice() const override {
    return of_->notice();
  }
  void* allocate(std::size_t bytes) override {
    return of_->allocate(bytes);
  }
  void release(void* p, std::size_t bytes) noexcept override {
    of_->release(p, bytes);
  }
  void to_device(const void* host, void* device, std::size_t bytes) override {
    of_->to_device(host, device, bytes);
  }
  void to_host(const void* device, void* host, std::size_t bytes) override {
    of_->to_host(device, host, bytes);
  }
  void zero(void* p, std::size_t bytes) override {
    of_->zero(p, bytes);
  }
  void wait() override {
    of_->wait();
  }

  void linear(In x, const Weight& w, Out y, float beta) override {
    both(Call("linear", x, w, y),
         [&](auto& b, auto&& m) { b.linear(m(x), m(w), m.out("y", y), beta); });
  }
  void linear_dx(In dy, const Weight& w, Out dx, float beta) override {
    both(Call("linear_dx", dy, w, dx),
         [&](auto& b, auto&& m) { b.linear_dx(m(dy), m(w), m.out("dx", dx), beta); });
  }
  void linear_dw(In dy, In x, Out dw) override {
    both(Call("linear_dw", dy, x, dw),
         [&](auto& b, auto&& m) { b.linear_dw(m(dy), m(x), m.out("dw", dw)); });
  }
  void add_bias(In bias, Out y) override {
    both(Call("add_bias", bias, y), [&](auto& b, auto&& m) { b.add_bias(m(bias), m.out("y", y)); });
  }
  void bias_grad(In dy, Out db) override {
    both(Call("bias_grad", dy, db),
         [&](auto& b, auto&& m) { b.bias_grad(m(dy), m.out("db", db)); });
  }
  void grouped_linear(In x, const Weight& w, const Plan& p, Out y, float beta) override {
    both(Call("grouped_linear", x, w, y), [&](auto& b, auto&& m) {
      b.grouped_linear(m(x), m(w), m(p), m.out("y", y, used(p)), beta);
    });
  }
  void grouped_linear_dx(In dy, const Weight& w, const Plan& p, Out dx, float beta) override {
    both(Call("grouped_linear_dx", dy, w, dx), [&](auto& b, auto&& m) {
      b.grouped_linear_dx(m(dy), m(w), m(p), m.out("dx", dx, used(p)), beta);
    });
  }
  void grouped_linear_dw(In dy, In x, const Plan& p, Out dw) override {
    both(Call("grouped_linear_dw", dy, x, dw),
         [&](auto& b, auto&& m) { b.grouped_linear_dw(m(dy), m(x), m(p), m.out("dw", dw)); });
  }
  void grouped_add_bias(In bias, const Plan& p, Out y) override {
    both(Call("grouped_add_bias", bias, y),
         [&](auto& b, auto&& m) { b.grouped_add_bias(m(bias), m(p), m.out("y", y, used(p))); });
  }
  void grouped_bias_grad(In dy, const Plan& p, Out db) override {
    both(Call("grouped_bias_grad", dy, db),
         [&](auto& b, auto&& m) { b.grouped_bias_grad(m(dy), m(p), m.out("db", db)); });
  }
  Plan plan(View<const int> kept, int experts) override;
  void dispatch(In x, const Plan& p, Out xs) override {
    both(Call("dispatch", x, xs),
         [&](auto& b, auto&& m) { b.dispatch(m(x), m(p), m.out("xs", xs, used(p))); });
  }
  void combine(In ys, const Plan& p, In weight, Out y, float beta) override {
    both(Call("combine", ys, weight, y),
         [&](auto& b, auto&& m) { b.combine(m(ys), m(p), m(weight), m.out("y", y), beta); });
  }
  void combine_backward(In dy, In ys, const Plan& p, In weight, Out dys, Out dweight) override {
    both(Call("combine_backward", dy, ys, weight), [&](auto& b, auto&& m) {
      b.combine_backward(m(dy), m(ys), m(p), m(weight), m.out("dys", dys, used(p)),
                         m.out("dweight", dweight));
    });
  }
  void scale_slots(Out xs, const Plan& p, In weight) override {
    both(Call("scale_slots", xs, weight),
         [&](auto& b, auto&& m) { b.scale_slots(m.out("xs", xs, used(p)), m(p), m(weight)); });
  }
  void activate(Activation a, In gate, In up, Out h) override {
    both(Call(concat("activate ", name_of(a)).c_str(), gate, up),
         [&](auto& b, auto&& m) { b.activate(a, m(gate), m(up), m.out("h", h)); });
  }
  void activate_backward(Activation a, In gate, In up, const Plan& p, In weight, In share, Out dh,
                         Out dgate, Out dup, Out dweight) override {
    both(Call(concat("activate_backward ", name_of(a)).c_str(), gate, up), [&](auto& b, auto&& m) {
      b.activate_backward(a, m(gate), m(up), m(p), m(weight), m(share), m.out("dh", dh),
                          m.out("dgate", dgate), m.out("dup", dup), m.out("dweight", dweight));
    });
  }
  void norm(In x, In w, double eps, Out y, Out rstd) override {
    both(Call("norm", x, w),
         [&](auto& b, auto&& m) { b.norm(m(x), m(w), eps, m.out("y", y), m.out("rstd", rstd)); });
  }
  void norm_backward(In dy, In x, In w, In rstd, Out dx, Out dw, float beta) override {
    both(Call("norm_backward", dy, w), [&](auto& b, auto&& m) {
      b.norm_backward(m(dy), m(x), m(w), m(rstd), m.out("dx", dx), m.out("dw", dw), beta);
    });
  }
  void center(Out x) override {
    both(Call("center", x), [&](auto& b, auto&& m) { b.center(m.out("x", x)); });
  }
  void clamp(Out x, double limit) override {
    both(Call("clamp", x), [&](auto& b, auto&& m) { b.clamp(m.out("x", x), limit); });
  }
  void clamp_backward(In y, double limit, Out dy) override {
    both(Call("clamp_backward", y),
         [&](auto& b, auto&& m) { b.clamp_backward(m(y), limit, m.out("dy", dy)); });
  }
  void rope(Out x, const Rotation& r, View<const int> position, bool transposed) override {
    both(Call("rope", x),
         [&](auto& b, auto&& m) { b.rope(m.out("x", x), r, m(position), transposed); });
  }
  void join_heads(In x, In z, int heads, Out y) override {
    both(Call("join_heads", x, z),
         [&](auto& b, auto&& m) { b.join_heads(m(x), m(z), heads, m.out("y", y)); });
  }
  void split_heads(In y, int heads, Out x, Out z) override {
    both(Call("split_heads", y),
         [&](auto& b, auto&& m) { b.split_heads(m(y), heads, m.out("a", x), m.out("b", z)); });
  }
  void add(In x, Out y, float scale) override {
    both(Call("add", x), [&](auto& b, auto&& m) { b.add(m(x), m.out("y", y), scale); });
  }
  void sigmoid_gate(In gate, In x, Out y) override {
    both(Call("sigmoid_gate", x),
         [&](auto& b, auto&& m) { b.sigmoid_gate(m(gate), m(x), m.out("y", y)); });
  }
  void sigmoid_gate_backward(In dy, In gate, In x, Out dgate, Out dx) override {
    both(Call("sigmoid_gate_backward", x), [&](auto& b, auto&& m) {
      b.sigmoid_gate_backward(m(dy), m(gate), m(x), m.out("dgate", dgate), m.out("dx", dx));
    });
  }
  void embed(const Weight& table, View<const int> id, Out y) override {
    both(Call("embed", table, y),
         [&](auto& b, auto&& m) { b.embed(m(table), m(id), m.out("y", y)); });
  }
  void embed_backward(In dy, View<const int> id, Out dtable) override {
    both(Call("embed_backward", dy, dtable),
         [&](auto& b, auto&& m) { b.embed_backward(m(dy), m(id), m.out("dtable", dtable)); });
  }
  void cross_entropy(Out z, View<const int> target, Out loss, float scale, bool backward) override {
    both(Call("cross_entropy", z), [&](auto& b, auto&& m) {
      b.cross_entropy(m.out("z", z), m(target), m.out("loss", loss), scale, backward);
    });
  }
  void attention(In q, In k, In v, const AttentionShape& a, Out out, Out lse) override {
    both(Call("attention", q, k), [&](auto& b, auto&& m) {
      b.attention(m(q), m(k), m(v), m(a), m.out("out", out), m.out("lse", lse));
    });
  }
  void attention_backward(In q, In k, In v, In out, In lse, In dout, const AttentionShape& a,
                          Out dq, Out dk, Out dv) override {
    both(Call("attention_backward", q, k), [&](auto& b, auto&& m) {
      b.attention_backward(m(q), m(k), m(v), m(out), m(lse), m(dout), m(a), m.out("dq", dq),
                           m.out("dk", dk), m.out("dv", dv));
    });
  }
  void attention_sink(In sink, Out out, Out lse) override {
    both(Call("attention_sink", out), [&](auto& b, auto&& m) {
      b.attention_sink(m(sink), m.out("out", out), m.out("lse", lse));
    });
  }
  void attention_sink_backward(In sink, In out, In lse, In dout, Out dsink) override {
    both(Call("attention_sink_backward", out), [&](auto& b, auto&& m) {
      b.attention_sink_backward(m(sink), m(out), m(lse), m(dout), m.out("dsink", dsink));
    });
  }
  void causal_conv(In x, In w, In bias, std::span<const Index> start, In before, Out y) override {
    both(Call("causal_conv", x, w), [&](auto& b, auto&& m) {
      b.causal_conv(m(x), m(w), m(bias), m(start), m(before), m.out("y", y));
    });
  }
  void causal_conv_backward(In dy, In x, In w, std::span<const Index> start, Out dx, Out dw,
                            Out dbias) override {
    both(Call("causal_conv_backward", dy, w), [&](auto& b, auto&& m) {
      b.causal_conv_backward(m(dy), m(x), m(w), m(start), m.out("dx", dx), m.out("dw", dw),
                             m.out("dbias", dbias));
    });
  }
  void adamw(Out value, Out grad, Out mean, Out square, const AdamW& o) override {
    both(Call("adamw", value), [&](auto& b, auto&& m) {
      b.adamw(m.out("value", value), m.out("grad", grad), m.out("m", mean), m.out("v", square), o);
    });
  }
  double sum_squares(In x) override;
  void experts(const ExpertWeights<float>&, In xs, const Plan&, ExpertTape<float>&,
               Out ys) override;
  void experts_backward(const ExpertWeights<float>& w, const ExpertGrads<float>& g, In xs,
                        const Plan& p, const ExpertTape<float>& tape, In dys, In weight, Out dxs,
                        Out dweight) override {
    both(Call("experts_backward", xs, w.up), [&](auto& b, auto&& m) {
      b.experts_backward(m(w), m.out(g), m(xs), m(p), m(tape), m(dys), m(weight),
                         m.out("dxs", dxs, used(p)), m.out("dweight", dweight));
    });
  }

 private:
  // Runs the operation by the definition on copies, then by X, and compares all that was written.
  template <class Run>
  void both(const Call& call, Run run) {
    Host host(*of_);
    run(*definition_, host);
    run(*of_, Device{});
    compare(call, host);
  }
  void compare(const Call& call, const Host& host) {
    for (const auto& w : host.written())
      equal(call, w.name, fetched(w.device).view().slice(0, w.rows), w.host.slice(0, w.rows));
  }
  void equal(const Call& call, const char* what, In got, In want) {
    const Difference d = difference(got, want);
    if (d.within(allowed + 2000 * of_->rounding() * of_->rounding()))
      return;
    throw Error(Exit::failed, concat(of_->name(), " differs from the definition: ", call.text, ": ",
                                     what, " is ", text_of(first_of(got, want, d))))
        .hint("moe verify --device runs every operation on known shapes");
  }
  Matrix<float> fetched(In v) {
    Matrix<float> m(v.rows, v.cols);
    if (v.size() > 0)
      of_->to_host(v.data, m.data(), std::size_t(v.size()) * sizeof(float));
    return m;
  }
  Index used(const Plan& p) {  // slots
    const Matrix<int> offset = p.offset.to_host();
    return offset(0, offset.cols() - 1);
  }

  std::unique_ptr<Backend<float>> of_, definition_ = make_reference<float>();
};

Matrix<float> numbers(const Array<int>& ids, Index count) {
  const Matrix<int> host = ids.to_host();
  Matrix<float> m(1, count);
  for (Index i = 0; i < count; ++i)
    m(0, i) = float(host.data()[i]);
  return m;
}

Plan Check::plan(View<const int> kept, int experts) {
  Host host(*of_);
  const Plan want = definition_->plan(host(kept), experts);
  Plan got = of_->plan(kept, experts);
  const Call call("plan", kept);
  equal(call, "offset", numbers(got.offset, experts + 1).view(),
        numbers(want.offset, experts + 1).view());
  equal(call, "place", numbers(got.place, kept.size()).view(),
        numbers(want.place, kept.size()).view());
  const Index slots = want.slots;  // equal offsets: so many are in use on both sides
  equal(call, "token", numbers(got.token, slots).view(), numbers(want.token, slots).view());
  equal(call, "choice", numbers(got.choice, slots).view(), numbers(want.choice, slots).view());
  return got;
}

double Check::sum_squares(In x) {
  const double got = of_->sum_squares(x);
  const double want = definition_->sum_squares(fetched(x).view());
  const float a = float(got);
  const float b = float(want);
  equal(Call("sum_squares", x), "the sum", In{&a, 1, 1}, In{&b, 1, 1});
  return got;
}

void Check::experts(const ExpertWeights<float>& w, In xs, const Plan& p, ExpertTape<float>& tape,
                    Out ys) {
  Host host(*of_);
  ExpertTape<float> want;
  const Out ys_host = host.out("ys", ys, used(p));
  definition_->experts(host(w), host(xs), host(p), want, ys_host);
  of_->experts(w, xs, p, tape, ys);
  const Call call("experts", xs, w.up);
  const Index rows = used(p);
  for (const auto& [name, got, definition] :
       {std::tuple{"gate", &tape.gate, &want.gate}, std::tuple{"up", &tape.up, &want.up}}) {
    const Index n = definition->empty() ? 0 : rows;
    equal(call, name, fetched(std::as_const(*got).view()).view().slice(0, n),
          std::as_const(*definition).view().slice(0, n));
  }
  compare(call, host);
}

}  // namespace

std::unique_ptr<Backend<float>> make_check(std::unique_ptr<Backend<float>> of) {
  return std::make_unique<Check>(std::move(of));
}
std::unique_ptr<Backend<float>> make_check_backend(Spec& spec) {
  return make_check(make_backend(spec.get("of", "cpu")));
}

}  // namespace moe
