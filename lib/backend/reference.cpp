#include "lib/backend/reference.h"

namespace moe {

template <class S>
std::unique_ptr<Backend<S>> make_reference() {
  return std::make_unique<Reference<S>>();
}
template std::unique_ptr<Backend<float>> make_reference<float>();
template std::unique_ptr<Backend<double>> make_reference<double>();
std::unique_ptr<Backend<float>> make_reference_backend(Spec&) {
  return make_reference<float>();
}

}  // namespace moe
