#include "lib/backend/machine.h"

#include "lib/backend/host_copies.h"

namespace moe {

template <class S>
bool Machine<S>::delegate(const Call<S>& call) {
  const std::unique_ptr<Backend<S>> definition = make_reference<S>();
  HostCopies<S> copies(call.op(), *this, *definition);
  call.run(*definition, copies);
  copies.write_back();
  return true;
}

template class Machine<float>;
template class Machine<double>;

}  // namespace moe
