// How a definition hands its operation over (Machine::delegated): the arguments are bound to the
// operation's name, so that it can be run on another backend or on host copies. Only the files of
// definitions include this.
#pragma once
#include <tuple>
#include <utility>
#include <variant>

#include "lib/backend/host_copies.h"

namespace moe {

template <class S, class Member, class... A>
class BoundCall final : public Call<S> {
 public:
  using Result =
      decltype((std::declval<Backend<S>&>().*std::declval<Member>())(std::declval<A>()...));
  static constexpr bool returns = !std::is_void_v<Result>;

  BoundCall(Operation op, Member operation, const A&... arguments)
      : op_(op), operation_(operation), arguments_(arguments...) {}

  Operation op() const override {
    return op_;
  }
  void run(Backend<S>& on) const override {
    const auto call = [&](const A&... a) -> Result {
      return (on.*operation_)(a...);
    };
    if constexpr (returns)
      result_ = std::apply(call, arguments_);
    else
      std::apply(call, arguments_);
  }
  void run(Backend<S>& on, HostCopies<S>& copies) const override {
    copies.expect(sizeof...(A));
    const auto call = [&](const A&... a) -> Result {
      // braces: copies are made in the order of the arguments
      std::tuple<decltype(copies.of(a))...> host{copies.of(a)...};
      return std::apply([&](auto&... h) -> Result { return (on.*operation_)(h...); }, host);
    };
    if constexpr (returns)
      result_ = copies.returned(std::apply(call, arguments_));
    else
      std::apply(call, arguments_);
  }
  auto take_result() {
    return std::move(result_);
  }

 private:
  Operation op_;
  Member operation_;
  std::tuple<const A&...> arguments_;
  // of the last run
  mutable std::conditional_t<returns, std::optional<Result>, std::monostate> result_;
};

template <class S>
template <class Group, class... P, class... A>
bool Machine<S>::delegated(Operation op, void (Group::*operation)(P...), const A&... arguments) {
  return delegate(BoundCall<S, void (Group::*)(P...), A...>(op, operation, arguments...));
}
template <class S>
template <class R, class Group, class... P, class... A>
std::optional<R> Machine<S>::delegated(Operation op, R (Group::*operation)(P...),
                                       const A&... arguments) {
  BoundCall<S, R (Group::*)(P...), A...> call(op, operation, arguments...);
  return delegate(call) ? call.take_result() : std::nullopt;
}

}  // namespace moe
