// Exchanges between devices: what a rank asks a device library for, which is looked at here with
// numbers of the host, and the module of NCCL where there is no GPU.
#include <dlfcn.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <deque>
#include <map>

#include "lib/comm/grouped.h"
#include "lib/comm/module.h"
#include "lib/core/error.h"
#include "tests/skip.h"

using namespace moe;

namespace {

using Kind = DeviceTransfer::Kind;
using Numbers = std::vector<std::uint8_t>;

// Numbers that rank `from` sends to rank `to`; none between some of them.
Numbers sent(int from, int to) {
  return Numbers(std::size_t((from * 7 + to * 3) % 5), std::uint8_t(16 * from + to));
}

// The sends and receives of all ranks, matched pair by pair in the order in which they were asked
// for, as NCCL does. Returns how many were left over or did not fit.
int run_groups(const std::vector<std::vector<DeviceTransfer>>& of_rank) {
  std::map<std::pair<int, int>, std::deque<DeviceTransfer>> sends;
  int wrong = 0;
  for (int r = 0; r < int(of_rank.size()); ++r) {
    for (const DeviceTransfer& t : of_rank[std::size_t(r)]) {
      if (t.kind == Kind::send)
        sends[{r, t.peer}].push_back(t);
      if (t.kind == Kind::copy)
        std::memcpy(t.to, t.from, t.bytes);
      wrong += t.bytes == 0 || (t.kind == Kind::copy) != (t.peer == r);
    }
  }
  for (int r = 0; r < int(of_rank.size()); ++r) {
    for (const DeviceTransfer& t : of_rank[std::size_t(r)]) {
      if (t.kind != Kind::receive)
        continue;
      auto& from = sends[{t.peer, r}];
      if (from.empty() || from.front().bytes != t.bytes) {
        ++wrong;
        continue;
      }
      std::memcpy(t.to, from.front().from, t.bytes);
      from.pop_front();
    }
  }
  for (const auto& [pair, left] : sends)
    wrong += int(left.size());
  return wrong;
}

}  // namespace

TEST_CASE("sends and receives that ranks group meet each other, and every byte arrives") {
  for (const int ranks : {1, 2, 3, 6}) {
    const auto size = static_cast<std::size_t>(ranks);
    std::vector<std::vector<Numbers>> out(size, std::vector<Numbers>(size));
    auto in = out;
    std::vector<std::vector<DeviceTransfer>> asked;
    for (int r = 0; r < ranks; ++r) {
      std::vector<ConstBytes> send;
      std::vector<Bytes> receive;
      for (int peer = 0; peer < ranks; ++peer) {
        Numbers& going = out[std::size_t(r)][std::size_t(peer)];
        Numbers& coming = in[std::size_t(r)][std::size_t(peer)];
        going = sent(r, peer);
        coming.resize(sent(peer, r).size());
        send.push_back(std::as_bytes(std::span(going)));
        receive.push_back(std::as_writable_bytes(std::span(coming)));
      }
      asked.push_back(grouped_transfers(r, send, receive));
    }
    CHECK(run_groups(asked) == 0);
    for (int r = 0; r < ranks; ++r) {
      for (int peer = 0; peer < ranks; ++peer)
        CHECK(in[std::size_t(r)][std::size_t(peer)] == sent(peer, r));
    }
  }
}

TEST_CASE("rows that stay where they are make no transfer, and lists that do not fit are refused") {
  std::array<std::byte, 4> here{};
  const std::vector<ConstBytes> send = {ConstBytes(here)};
  const std::vector<Bytes> receive = {Bytes(here)};
  CHECK(grouped_transfers(0, send, receive).empty());
  const std::vector<Bytes> less = {Bytes(here).first(2)};
  CHECK_THROWS_WITH(grouped_transfers(0, send, less), Catch::Contains("do not fit"));
  CHECK_THROWS_WITH(grouped_transfers(1, send, receive), Catch::Contains("do not fit"));
  CHECK_THROWS_WITH(grouped_transfers(0, send, {}), Catch::Contains("do not fit"));
}

TEST_CASE("the module of NCCL opens, and says that there is no GPU where there is none") {
#ifdef MOE_NCCL_MODULE
  void* module = ::dlopen(MOE_NCCL_MODULE, RTLD_NOW | RTLD_LOCAL);
  INFO((module ? "" : ::dlerror()));
  REQUIRE(module);
  const auto get = reinterpret_cast<GetDeviceModule*>(::dlsym(module, device_module_name));
  REQUIRE(get);
  std::string device, key, why;
  if (get()->identity(0, device, why)) {
    CHECK(device.size() == 16);
    return test::skip("there is a GPU here");
  }
  CHECK_THAT(why, Catch::StartsWith("there is no GPU: "));
  CHECK(why.size() > 30);
  CHECK(device.empty());
  why.clear();
  CHECK(get()->open({.rank = 0, .size = 2, .patience = 1}, "short", why) == nullptr);
  CHECK_THAT(why, Catch::Contains("is not NCCL's"));
  why.clear();
  CHECK(get()->open({.rank = 0, .size = 2, .patience = 1}, std::string(128, '\1'), why) == nullptr);
  CHECK(!why.empty());
#else
  test::skip("this build has no module of NCCL: the CUDA toolkit or NCCL is missing");
#endif
}
