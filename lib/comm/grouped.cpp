#include "lib/comm/grouped.h"

#include "lib/core/error.h"

namespace moe {

std::vector<DeviceTransfer> grouped_transfers(int rank, std::span<const ConstBytes> send,
                                              std::span<const Bytes> receive) {
  const int size = int(send.size());
  if (receive.size() != send.size() || rank < 0 || rank >= size ||
      send[std::size_t(rank)].size() != receive[std::size_t(rank)].size())
    throw Error(Exit::bug, "the lists of an exchange between devices do not fit each other");
  std::vector<DeviceTransfer> out;
  const ConstBytes own = send[std::size_t(rank)];
  const Bytes kept = receive[std::size_t(rank)];
  if (!own.empty() && own.data() != kept.data())
    out.push_back({DeviceTransfer::Kind::copy, rank, own.size(), own.data(), kept.data()});
  for (int step = 1; step < size; ++step) {
    const int to = (rank + step) % size;
    const int from = (rank - step + size) % size;
    if (const ConstBytes going = send[std::size_t(to)]; !going.empty())
      out.push_back({DeviceTransfer::Kind::send, to, going.size(), going.data(), nullptr});
    if (const Bytes coming = receive[std::size_t(from)]; !coming.empty())
      out.push_back({DeviceTransfer::Kind::receive, from, coming.size(), nullptr, coming.data()});
  }
  return out;
}

}  // namespace moe
