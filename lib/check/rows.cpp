// Cases of what goes row by row: activations, norm, tokens, loss, optimiser.
#include <memory>
#include <tuple>
#include <utility>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

struct Data {
  Array<float> a, b, c, d, e, f;
  Array<int> id;
};
std::string rows_text(Index rows, Index cols) {
  return concat("T=", rows, " n=", cols);
}
double size_of(Index rows, Index cols) {
  return double(rows) * double(cols);
}

Case activate(Activation a, Index rows, Index cols) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 31);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(is_gated(a) ? rows : 0, cols, 4);
    d->b = in.noise(rows, cols, 4);
    d->c = in.unset(rows, cols);
    return Trial{[d, a, &b] { b.activate(a, d->a.view(), d->b.view(), d->c.view()); },
                 [d] {
                   return outputs({{"h", &d->c}});
                 }};
  };
  return {"activate", concat(activation_text(a), " ", rows_text(rows, cols)),
          prepare,    1e-11,
          0,          12 * size_of(rows, cols)};
}

Case norm(Index rows, Index cols, Index group) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 32);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(rows, cols);
    d->b = in.noise(1, group);
    d->c = in.unset(rows, cols);
    d->d = in.unset(rows, cols / group);
    return Trial{[d, &b] { b.norm(d->a.view(), d->b.view(), 1e-5, d->c.view(), d->d.view()); },
                 [d] {
                   return outputs({{"y", &d->c}, {"rstd", &d->d}});
                 }};
  };
  return {"norm",  concat(rows_text(rows, cols), " group=", group),
          prepare, 1e-11,
          0,       8 * size_of(rows, cols)};
}
Case norm_backward(Index rows, Index cols, Index group, float beta, bool wanted) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 33);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(rows, cols);
    d->b = in.noise(1, group);
    d->c = in.noise(rows, cols);
    d->d = in.unset(rows, cols / group);
    d->e = beta == 0 ? in.unset(rows, cols) : in.noise(rows, cols);
    if (wanted)
      d->f = in.noise(1, group);
    const auto y = std::make_shared<Array<float>>(in.unset(rows, cols));
    b.norm(d->a.view(), d->b.view(), 1e-5, y->view(), d->d.view());
    return Trial{[d, beta, &b] {
                   b.norm_backward(d->c.view(), d->a.view(), d->b.view(), d->d.view(), d->e.view(),
                                   d->f.view(), beta);
                 },
                 [d] {
                   return outputs({{"dx", &d->e}, {"dw", &d->f}});
                 }};
  };
  return {
      "norm_backward",
      concat(rows_text(rows, cols), " group=", group, " beta=", beta, wanted ? " dw" : ""),
      prepare,
      group == 1 ? 1e-6 : 1e-10 /* of one number the gradient is what eps leaves of a difference */,
      0,
      12 * size_of(rows, cols)};
}

Case add(Index rows, Index cols, float scale) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 35);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(rows, cols);
    d->b = in.noise(rows, cols);
    return Trial{[d, scale, &b] { b.add(d->a.view(), d->b.view(), scale); },
                 [d] {
                   return outputs({{"y", &d->b}});
                 }};
  };
  return {"add",   concat(rows_text(rows, cols), " scale=", scale),
          prepare, 1e-12,
          0,       12 * size_of(rows, cols)};
}
Case sigmoid_gate(Index rows, Index cols, bool backward) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 36);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(rows, 1, 3);
    d->b = in.noise(rows, cols);
    d->c = in.noise(rows, cols);
    d->d = in.unset(rows, 1);
    d->e = in.unset(rows, cols);
    const auto run = [d, backward, &b] {
      if (backward)
        b.sigmoid_gate_backward(d->c.view(), d->a.view(), d->b.view(), d->d.view(), d->e.view());
      else
        b.sigmoid_gate(d->a.view(), d->b.view(), d->c.view());
    };
    return Trial{
        run, [d, backward] {
          return backward ? outputs({{"dgate", &d->d}, {"dx", &d->e}}) : outputs({{"y", &d->c}});
        }};
  };
  return {backward ? "sigmoid_gate_backward" : "sigmoid_gate",
          rows_text(rows, cols),
          prepare,
          1e-10,
          0,
          12 * size_of(rows, cols)};
}

Case embed(Index rows, Index cols, int vocabulary, bool backward) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 37);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(vocabulary, cols);
    d->id = in.ids(1, rows, vocabulary);
    d->b = backward ? in.noise(rows, cols) : in.unset(rows, cols);
    const auto run = [d, backward, &b] {
      if (backward)
        b.embed_backward(d->b.view(), d->id.view(), d->a.view());
      else
        b.embed(Weight(d->a.view()), d->id.view(), d->b.view());
    };
    return Trial{run, [d] {
                   return outputs({{"table", &d->a}, {"y", &d->b}});
                 }};
  };
  return {backward ? "embed_backward" : "embed",
          concat(rows_text(rows, cols), " V=", vocabulary),
          prepare,
          backward ? 1e-11 : 0,
          0,
          8 * size_of(rows, cols)};
}
Case cross_entropy(Index rows, int vocabulary, double scale, bool backward) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 38);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(rows, vocabulary, scale);
    d->id = in.ids(1, rows, vocabulary, 0.2);
    d->b = in.unset(1, rows);
    return Trial{[d, backward, &b] {
                   b.cross_entropy(d->a.view(), d->id.view(), d->b.view(), 0.125f, backward);
                 },
                 [d] {
                   return outputs({{"loss", &d->b}, {"z", &d->a}});
                 }};
  };
  return {"cross_entropy",
          concat("T=", rows, " V=", vocabulary, " spread=", scale, backward ? " backward" : ""),
          prepare,
          1e-10,
          0,
          8 * size_of(rows, vocabulary)};
}

Case adamw(Index rows, Index cols, Index step, double decay) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 39);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(rows, cols);
    d->b = in.noise(rows, cols);
    d->c = in.noise(rows, cols, step == 1 ? 0 : 1);
    d->d = in.noise(rows, cols);
    Matrix<float> v = d->d.to_host();
    for (float& x : v.flat())
      x = step == 1 ? 0.0f : x * x;  // v is never negative
    d->d.set(std::as_const(v).view());
    const AdamW o{.lr = 0.01, .decay = decay, .grad_scale = 0.5, .step = step};
    return Trial{[d, o, &b] { b.adamw(d->a.view(), d->b.view(), d->c.view(), d->d.view(), o); },
                 [d] {
                   return outputs({{"value", &d->a}, {"m", &d->c}, {"v", &d->d}});
                 }};
  };
  return {"adamw", concat(rows_text(rows, cols), " step=", step, " decay=", decay),
          prepare, 1e-11,
          0,       28 * size_of(rows, cols)};
}
Case sum_squares(Index rows, Index cols) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 40);
    const auto d = std::make_shared<Data>();
    d->a = in.noise(rows, cols);
    const auto sum = std::make_shared<double>(0);
    return Trial{[d, sum, &b] { *sum = b.sum_squares(std::as_const(d->a).view()); },
                 [sum] {
                   return std::vector<Output>{{"sum", Matrix<float>(1, 1, float(*sum))}};
                 }};
  };
  return {"sum_squares", rows_text(rows, cols), prepare, 1e-12, 0, 4 * size_of(rows, cols)};
}

std::vector<Case> at_size() {
  return {activate(Activation::swiglu, 4096, 1024),
          norm(4096, 512, 512),
          norm_backward(4096, 512, 512, 1, true),
          norm_backward(4096, 512, 64, 0, true),
          add(4096, 512, 1),
          embed(4096, 512, 320, false),
          embed(4096, 512, 320, true),
          cross_entropy(4096, 320, 1, true),
          cross_entropy(1024, 32000, 1, true),
          adamw(4096, 1024, 10, 0.1),
          sum_squares(4096, 1024)};
}

// What has its backward beside it.
void add_both_ways(std::vector<Case>& all) {
  for (const bool backward : {false, true}) {
    for (const auto& [rows, cols] : std::vector<std::pair<Index, Index>>{{1, 1}, {70, 33}})
      all.push_back(sigmoid_gate(rows, cols, backward));
    all.push_back(embed(1, 1, 1, backward));
    all.push_back(embed(500, 70, 11, backward));
    for (const double spread : {1.0, 30.0})
      all.push_back(cross_entropy(70, 65, spread, backward));
    all.push_back(cross_entropy(1, 1, 1, backward));
  }
}

}  // namespace

std::vector<Case> row_cases(bool bench) {
  if (bench)
    return at_size();
  std::vector<Case> all;
  for (const std::string& name : activation_names())
    all.push_back(activate(activation_of(name), 37, 29));
  all.push_back(activate({Activation::swiglu, 1.5f}, 37, 29));
  all.push_back(activate(Activation::swiglu, 1, 1));
  all.push_back(activate(Activation::swiglu, 300, 257));
  add_both_ways(all);
  for (const auto& [rows, cols, group] :
       std::vector<std::tuple<Index, Index, Index>>{{1, 1, 1}, {5, 24, 8}, {600, 33, 33}}) {
    all.push_back(norm(rows, cols, group));
    all.push_back(norm_backward(rows, cols, group, 0, true));
    all.push_back(norm_backward(rows, cols, group, 1, false));
  }
  for (const auto& [rows, cols] :
       std::vector<std::pair<Index, Index>>{{1, 1}, {0, 5}, {333, 301}}) {
    all.push_back(add(rows, cols, -0.5f));
    all.push_back(adamw(rows, cols, 1, 0));
    all.push_back(adamw(rows, cols, 7, 0.1));
    all.push_back(sum_squares(rows, cols));
  }
  return all;
}

}  // namespace moe::check
