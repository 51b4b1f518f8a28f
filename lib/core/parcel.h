// Numbers on their way between ranks, in host memory. It is not cleared when it is made, which
// would take as long as to fill it: every number is set before it is read.
#pragma once
#include <memory>
#include <utility>

#include "lib/core/comm.h"

namespace moe {

template <class T>
class Parcel {
 public:
  Parcel() = default;
  explicit Parcel(Index count)
      : numbers_(std::make_unique_for_overwrite<T[]>(std::size_t(count))), count_(count) {}
  std::span<T> span() const {
    return {numbers_.get(), std::size_t(count_)};
  }
  ConstBytes bytes() const {
    return std::as_bytes(span());
  }

 private:
  std::unique_ptr<T[]> numbers_;
  Index count_ = 0;
};

// To and from all other ranks, by rank; what is this one's own does not travel.
inline void travel(Comm& comm, About about, std::vector<ConstBytes> send,
                   std::vector<Bytes> receive) {
  const auto own = std::size_t(comm.rank());
  send[own] = {};
  receive[own] = {};
  comm.exchange(about, send, receive);
}

template <class T>
void travel(Comm& comm, About about, std::vector<ConstBytes> send,
            const std::vector<Parcel<T>>& in) {
  std::vector<Bytes> receive;
  for (const Parcel<T>& of_rank : in)
    receive.push_back(std::as_writable_bytes(of_rank.span()));
  travel(comm, about, std::move(send), std::move(receive));
}

}  // namespace moe
