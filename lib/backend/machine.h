// What every group of operations (lib/backend/ops) stands on: memory, and what becomes of an
// operation that a backend does not override. The group has its definition: plain loops in S, sums
// in double, written once. On a host backend it runs where the numbers lie; on a device it runs on
// host copies of the arguments, whose results are copied back; check: runs it beside another
// backend. So an operation is declared in its group's header, defined in the .cpp beside it, named
// in operations.def and has cases in lib/check; backends override it only to be fast.
#pragma once
#include <optional>

#include "lib/backend/array.h"
#include "lib/backend/operations.h"

namespace moe {

template <class S>
class Backend;
template <class S>
class HostCopies;

// An operation and its arguments.
template <class S>
class Call {
 public:
  virtual Operation op() const = 0;
  virtual void run(Backend<S>&) const = 0;                  // on the arguments as they are
  virtual void run(Backend<S>&, HostCopies<S>&) const = 0;  // on host copies of them

 protected:
  ~Call() = default;
};

template <class S>
class Machine : public Memory {
 public:
  // Whether this backend overrides the operation; else it runs by the definition.
  virtual bool native(Operation) const {
    return false;
  }

 protected:
  // The first line of a definition: true, or the result, where the operation was run in another
  // way than by the loops that follow. A `View<const T>` is read; a `View<T>` is read and written.
  // Defined in delegate.h.
  template <class Group, class... P, class... A>
  bool delegated(Operation, void (Group::*operation)(P...), const A&... arguments);
  template <class R, class Group, class... P, class... A>
  std::optional<R> delegated(Operation, R (Group::*operation)(P...), const A&... arguments);

 private:
  // Runs an operation that is not overridden, and returns true; false: the definition may touch the
  // numbers where they lie. Here: by `reference` on host copies.
  virtual bool delegate(const Call<S>&);
};

}  // namespace moe
