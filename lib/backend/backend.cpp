#include "lib/backend/backend.h"

#include "lib/core/error.h"

namespace moe {

#define BACKEND(name, about, examples) MakeBackend make_##name##_backend;
#include "lib/backend/backends.def"
#undef BACKEND

const Registry<MakeBackend>& backends() {
  static const Registry<MakeBackend> all("device", {
#define BACKEND(name, about, examples) {#name, about, examples, make_##name##_backend},
#include "lib/backend/backends.def"
#undef BACKEND
                                                   });
  return all;
}

std::unique_ptr<Backend<float>> make_backend(const std::string& text) {
  Spec spec(text);
  auto made = backends().at(spec.name()).make(spec);
  spec.done();
  return made;
}

constexpr std::pair<Activation, std::string_view> activations[] = {
    {Activation::swiglu, "swiglu"},
    {Activation::geglu, "geglu"},
    {Activation::geglu_tanh, "geglu_tanh"},
    {Activation::reglu, "reglu"},
    {Activation::swiglu_clamped, "swiglu_clamped"},
    {Activation::silu, "silu"},
    {Activation::relu, "relu"},
    {Activation::relu2, "relu2"},
    {Activation::gelu, "gelu"},
    {Activation::gelu_tanh, "gelu_tanh"}};

std::string_view name_of(Activation a) {
  return activations[std::size_t(a.kind)].second;
}
std::vector<std::string> activation_names() {
  std::vector<std::string> out;
  for (const auto& [a, name] : activations)
    out.emplace_back(name);
  return out;
}
Activation activation_of(std::string_view name) {
  for (const auto& [a, n] : activations) {
    if (n == name)
      return a;
  }
  no_such("activation", name, activation_names());
}

template <class S>
View<const S> plain(const Weight& w) {
  if (w.dtype != dtype_of<S>) {
    throw Error(Exit::bug, concat("a weight stored as ", name_of(w.dtype), " was read as ",
                                  name_of(dtype_of<S>)));
  }
  return {static_cast<const S*>(w.data), w.rows, w.cols};
}
template View<const float> plain<float>(const Weight&);
template View<const double> plain<double>(const Weight&);

}  // namespace moe
