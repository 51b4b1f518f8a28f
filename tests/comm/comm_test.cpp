// Exchanges between ranks: what arrives where, and what every rank hears when one of them is
// elsewhere, comes late, or fails.
#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

#include "lib/comm/threads.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "tests/comm/through.h"

using namespace moe;
using namespace moe::test;

namespace {

std::vector<int> numbers(int from, int to, int count) {
  std::vector<int> out(static_cast<std::size_t>(count));
  std::iota(out.begin(), out.end(), 1000 * from + 100 * to);
  return out;
}

std::string sentence_of(int ranks, const std::function<void(Comm&)>& rank, double patience = 20) {
  try {
    as_threads(ranks, rank, patience);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

// Two ranks of which this is the first, and the other says and sends what it is asked to.
class Mock final : public Transport {
 public:
  const char* name() const override {
    return "mock";
  }
  int rank() const override {
    return 0;
  }
  int size() const override {
    return 2;
  }
  bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive, double,
                std::vector<int>&) override {
    sizes.emplace_back(send[1].size(), receive[1].size());
    if (sizes.size() % 2 == 1)  // a header: the other one says the same
      std::memcpy(receive[1].data(), send[1].data(), send[1].size());
    else if (!receive[1].empty())
      receive[1].back() = send[1].back();
    return true;
  }
  void end_all(int) noexcept override {}

  std::vector<std::pair<std::size_t, std::size_t>> sizes;
};

}  // namespace

TEST_CASE("every rank gets what each sent to it, of any size, none included") {
  for (const int ranks : {1, 2, 3, 5}) {
    as_threads(ranks, [&](Comm& comm) {
      const auto count = [&](int from, int to) {
        return (from * 7 + to * 3) % 5;
      };
      std::vector<std::vector<int>> out;
      std::vector<ConstBytes> send;
      for (int r = 0; r < ranks; ++r)
        out.push_back(numbers(comm.rank(), r, count(comm.rank(), r)));
      for (const auto& o : out)
        send.push_back(std::as_bytes(std::span(o)));
      for (int round = 0; round < 20; ++round) {
        const auto got = comm.exchange({"numbers", round}, send);
        for (int r = 0; r < ranks; ++r) {
          const auto expected = numbers(r, comm.rank(), count(r, comm.rank()));
          const ConstBytes bytes = std::as_bytes(std::span(expected));
          if (!std::ranges::equal(got[std::size_t(r)], bytes))
            throw Error(Exit::failed, concat("rank ", comm.rank(), " got other numbers of ", r));
        }
      }
    });
  }
}

TEST_CASE("sums of whole numbers, sentences and votes are the same on every rank") {
  std::atomic<int> right = 0;
  as_threads(4, [&](Comm& comm) {
    std::vector<std::int64_t> n = {comm.rank() + 1, std::int64_t(1) << 40};
    comm.sum({"numbers"}, n);
    const bool sums = n == std::vector<std::int64_t>{10, std::int64_t(4) << 40};
    const bool said = comm.from_first({"words"}, comm.first() ? "all of it" : "") == "all of it";
    const bool votes = comm.any({"vote"}, comm.rank() == 2) && !comm.any({"vote"}, false);
    const double mine = 0.5 + comm.rank();
    const auto all = comm.gather<double>({"doubles"}, std::span(&mine, 1));
    right += sums && said && votes && all.size() == 4 && all[3] == std::vector<double>{3.5};
  });
  CHECK(right == 4);
}

TEST_CASE("ranks in different exchanges hear of both, and none waits for ever") {
  const std::string kinds = sentence_of(3, [](Comm& comm) {
    comm.at_step(12);
    comm.any({"first"}, false);
    if (comm.rank() == 2) {
      comm.any({"gradients", 3}, false);
      comm.any({"rows", 3}, false);
    } else {
      comm.any({"rows", 3}, false);
      comm.any({"gradients", 3}, false);
    }
  });
  CHECK_THAT(kinds, Catch::Contains("step 12: ranks are out of step"));
  CHECK_THAT(kinds, Catch::Contains("exchange 2, 'rows' of layer 3"));
  CHECK_THAT(kinds, Catch::Contains("exchange 2, 'gradients' of layer 3"));
  const std::string layers = sentence_of(2, [](Comm& comm) {
    comm.any({"rows", comm.rank()}, true);
  });
  CHECK_THAT(layers, Catch::Contains("'rows' of layer 0"));
  CHECK_THAT(layers, Catch::Contains("'rows' of layer 1"));
  const std::string sizes = sentence_of(2, [](Comm& comm) {
    std::vector<std::byte> out(8);
    std::vector<std::byte> in(comm.rank() == 0 ? 4 : 8);
    const std::vector<ConstBytes> send = {ConstBytes(out).first(comm.rank() == 0 ? 4 : 8),
                                          ConstBytes(out).first(comm.rank() == 0 ? 8 : 8)};
    std::vector<Bytes> receive(2, Bytes(in));
    comm.exchange({"rows"}, send, receive);
  });
  CHECK_THAT(sizes, Catch::Contains("rank 1 sends 8 bytes where rank 0 takes 4"));
}

TEST_CASE("how far a rank has come is told: its step, and the last exchange, of a group too") {
  std::atomic<int> right = 0;
  as_threads(4, [&](Comm& comm) {
    comm.any({"before any step"}, false);
    const bool none = comm.reached().empty();
    comm.at_step(12);
    comm.any({"rows to experts", 2}, false);
    const bool all = comm.reached() == "step 12, at exchange 2, 'rows to experts' of layer 2";
    const std::vector<int> members = comm.rank() % 2 == 0 ? std::vector{0, 2} : std::vector{1, 3};
    comm.among(members)->any({"gradients"}, false);
    const bool group = comm.reached() == "step 12, at exchange 1, 'gradients'";
    right += none && all && group;
  });
  CHECK(right == 4);
}

TEST_CASE("a rank that does not come is named after the patience") {
  using clock = std::chrono::steady_clock;
  const auto start = clock::now();
  std::string sentence;
  try {
    as_threads(
        3,
        [](Comm& comm) {
          comm.at_step(4);
          if (comm.rank() == 1)
            std::this_thread::sleep_for(std::chrono::milliseconds(1500));
          else
            comm.any({"expert rows", 2}, false);
        },
        0.2);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::environment);
    sentence = e.what();
  }
  CHECK_THAT(sentence, Catch::Contains("step 4: rank 0 has waited 0.2 s for rank 1 in exchange 1, "
                                       "'expert rows' of layer 2") ||
                           Catch::Contains("step 4: rank 2 has waited 0.2 s for rank 1 in "
                                           "exchange 1, 'expert rows' of layer 2"));
  CHECK(std::chrono::duration<double>(clock::now() - start).count() < 10);
}

TEST_CASE("an error of one rank ends the others, wherever they are") {
  for (int planted = 0; planted < 50; ++planted) {
    const int rank = planted % 4;
    const std::string sentence = sentence_of(4, [&](Comm& comm) {
      for (int i = 0; i < 12; ++i) {
        if (comm.rank() == rank && i == planted % 12)
          throw Error(Exit::numeric, concat("rank ", rank, " has a NaN"));
        comm.any({"step"}, false);
      }
    });
    CHECK(sentence == concat("rank ", rank, " has a NaN"));
  }
}

TEST_CASE("an exchange of 3 GiB keeps its counts") {
  constexpr std::size_t much = std::size_t(3) << 30;
  static_assert(much > (std::size_t(1) << 31));
  const auto mock = std::make_shared<Mock>();
  Comm comm(mock);
  // never touched but for their ends, so that they take no memory
  std::unique_ptr<std::byte[]> out(new std::byte[much]);
  std::unique_ptr<std::byte[]> in(new std::byte[much]);
  out[much - 1] = std::byte{7};
  const std::vector<ConstBytes> send = {ConstBytes{}, ConstBytes(out.get(), much)};
  const std::vector<Bytes> receive = {Bytes{}, Bytes(in.get(), much)};
  comm.exchange({"rows"}, send, receive);
  REQUIRE(mock->sizes.size() == 2);
  CHECK(mock->sizes[1] == std::pair(much, much));
  CHECK(in[much - 1] == std::byte{7});
  CHECK(comm.totals().bytes == std::int64_t(much));
}

namespace {

// What rank `from` sends to rank `to` in exchange `number` of several.
std::vector<int> part_of(int number, int from, int to) {
  return numbers(from, to, (3 * from + 5 * to + number) % 4);
}

struct Lists {
  std::vector<std::vector<int>> out, in;
  Comm::Wanted wanted(const char* kind) {
    Comm::Wanted w{.about = {kind}, .send = {}, .receive = {}};
    for (std::size_t r = 0; r < out.size(); ++r) {
      w.send.push_back(std::as_bytes(std::span(out[r])));
      w.receive.push_back(std::as_writable_bytes(std::span(in[r])));
    }
    return w;
  }
};

// Of exchange `number`, with nothing in what is to be sent.
Lists lists_of(int number, const Comm& comm) {
  Lists lists;
  for (int r = 0; r < comm.size(); ++r) {
    lists.out.emplace_back(part_of(number, comm.rank(), r).size());
    lists.in.emplace_back(part_of(number, r, comm.rank()).size());
  }
  return lists;
}

// Knows that rank 1 is gone.
class OneGone final : public Through {
 public:
  using Through::Through;
  std::vector<int> gone() override {
    return {1};
  }
};

// Two exchanges are open while the ranks fill what they send, in an order of their own.
void two_open_exchanges(Comm& comm) {
  for (int round = 0; round < 10; ++round) {
    Lists first = lists_of(round, comm);
    Lists second = lists_of(round + 1, comm);
    auto open = comm.open({first.wanted("rows"), second.wanted("outputs")});
    const auto fill = [&](int exchange, int to) {
      Lists& lists = exchange == 0 ? first : second;
      std::ranges::copy(part_of(round + exchange, comm.rank(), to),
                        lists.out[std::size_t(to)].begin());
      open[std::size_t(exchange)].send(to);
    };
    for (int r = 0; r < comm.size(); ++r)
      fill(0, r);
    for (int r = 0; r < comm.size(); ++r) {
      const int to = (comm.rank() + r) % comm.size();
      open[0].wait_for(to);
      open[0].look();
      if (first.in[std::size_t(to)] != part_of(round, to, comm.rank()))
        throw Error(Exit::failed, concat("rank ", comm.rank(), " got other rows of ", to));
      fill(1, to);
    }
    for (OpenExchange& exchange : open)
      exchange.finish();
    for (int r = 0; r < comm.size(); ++r) {
      if (second.in[std::size_t(r)] != part_of(round + 1, r, comm.rank()))
        throw Error(Exit::failed, concat("rank ", comm.rank(), " got other outputs of ", r));
    }
    comm.any({"end of a round"}, false);
  }
}

}  // namespace

TEST_CASE("exchanges that are open together bring what each rank sends, early or late") {
  for (const int ranks : {1, 2, 3, 5}) {
    as_threads(ranks, two_open_exchanges);
    as_threads(ranks, two_open_exchanges, 20,
               [](std::shared_ptr<Transport> t) { return std::make_shared<AtOnce>(std::move(t)); });
  }
  // those of a group, while other ranks have their own
  as_threads(5, [](Comm& comm) {
    const std::vector<int> members =
        comm.rank() % 2 == 0 ? std::vector{0, 2, 4} : std::vector{1, 3};
    two_open_exchanges(*comm.among(members));
    two_open_exchanges(comm);
  });
}

TEST_CASE("in an open exchange too a late rank is named, and what was not sent is a bug") {
  const auto late = [](Comm& comm) {
    comm.at_step(7);
    Lists lists;
    lists.out.assign(3, {1, 2});
    lists.in.assign(3, {0, 0});
    auto open = comm.open({lists.wanted("rows")});
    for (int r = 0; r < 3; ++r) {
      if (comm.rank() != 1 || r == 1)
        open[0].send(r);
    }
    if (comm.rank() == 1)
      std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    else
      open[0].finish();
  };
  CHECK_THAT(sentence_of(3, late, 0.2),
             Catch::Contains("has waited 0.2 s for rank 1 in exchange 1, 'rows'"));
  const auto unsent = [](Comm& comm) {
    Lists lists;
    lists.out.assign(2, {});
    lists.in.assign(2, {});
    comm.open({lists.wanted("rows")})[0].finish();
  };
  CHECK_THAT(sentence_of(2, unsent), Catch::Contains("before all that it sends is there"));
}

TEST_CASE("a rank that is gone is named at once, and only by those who wait for it") {
  std::string sentence;
  const auto waits = [](Comm& comm) {
    comm.at_step(7);
    const std::vector<int> members = comm.rank() == 1 ? std::vector{1} : std::vector{0, 2, 3};
    if (comm.rank() != 1)
      two_open_exchanges(*comm.among(members));  // nobody waits for it there
    Lists lists = lists_of(0, comm);
    auto open = comm.open({lists.wanted("rows")});
    for (int r = 0; r < comm.size(); ++r) {
      if (comm.rank() != 1 || r == 1)
        open[0].send(r);
    }
    if (comm.rank() != 1)
      open[0].finish();
    else
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
  };
  try {
    as_threads(4, waits, 60, [](std::shared_ptr<Transport> t) {
      return std::make_shared<OneGone>(std::move(t));
    });
  } catch (const Error& e) {
    CHECK(e.code() == Exit::environment);
    sentence = e.what();
  }
  CHECK_THAT(sentence, Catch::Contains("step 7: the process of rank 1 has ended; rank ") &&
                           Catch::Contains("waited for it in exchange 1, 'rows'"));
}
