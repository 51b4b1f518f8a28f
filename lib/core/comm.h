// The other processes of a run, its ranks. A Transport moves bytes between them (lib/comm has
// several); Comm is what the rest of the program sees. There is no sum of floating-point numbers
// here, on purpose: a library adds in an order of its own, which changes with the number of ranks
// and the size. Ranks exchange numbers and whoever owns a sum adds in an order that the run fixes,
// so that a result does not depend on who computed what.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "lib/core/view.h"

namespace moe {

using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

// Bytes on their way between this rank and the others, which come and go while it computes.
class Flow {
 public:
  virtual ~Flow() = default;
  // At most once for each rank but this one: `out` is ready and stays until done().
  virtual void send(int to, ConstBytes out) = 0;
  // Looks after what is under way, for that needs the caller's time; waits for nothing.
  virtual void look() = 0;
  // Whether all that a rank sends here has come.
  virtual bool has_come(int from) = 0;
  // What was given to send() is taken, and all has come; else `missing` has the ranks that still
  // have something to do.
  virtual bool done(std::vector<int>& missing) = 0;
  // Lets other processes and threads compute; the longer `waited`, in seconds, the longer.
  virtual void pause(double waited) = 0;
};

// How bytes reach another rank. Ranks are numbered from 0.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const = 0;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Sends send[r] to rank r and fills receive[r] from it, for every r but this rank's own; empty =
  // nothing. Both sides know the sizes, which may be beyond 2^31. Returns true when all is done,
  // and false after `patience` seconds, or when one of those that are missing is gone: then
  // `missing` has the ranks that have not answered.
  virtual bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive,
                        double patience, std::vector<int>& missing) = 0;
  // The same where receive[r] fills while the rank computes, and send comes later. Several may be
  // under way: what two ranks send each other is taken in the order in which flows were begun, so
  // all begin and send in one order. Null where a transport has none.
  virtual std::unique_ptr<Flow> flow(std::span<const Bytes> receive) {
    static_cast<void>(receive);
    return nullptr;
  }
  // Ranks whose process has ended without having ended all, for whom others wait in vain. Asked in
  // a loop while a rank waits; a transport that cannot tell knows of none.
  virtual std::vector<int> gone() {
    return {};
  }
  // Ends every rank with this exit code.
  virtual void end_all(int code) noexcept = 0;
  // Every rank is through and calls this; no exchange comes after it.
  virtual void finish() {}
};

// What an exchange is for; all ranks must mean the same one.
struct About {
  const char* kind;  // a literal of at most 39 characters
  int layer = -1;    // -1 = of no layer
};

struct ExchangeTotals {
  std::int64_t exchanges = 0, bytes = 0;  // bytes that this rank sent to others
  double seconds = 0;                     // in exchanges: of moving bytes, and of waiting
};

class OpenExchange;

class Comm {
 public:
  static constexpr double default_patience = 300;  // seconds

  Comm() = default;  // one rank, no other
  explicit Comm(std::shared_ptr<Transport>, double patience = default_patience);
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  int rank() const {
    return rank_;
  }
  int size() const {
    return size_;
  }
  bool alone() const {
    return size_ == 1;
  }
  bool first() const {
    return rank_ == 0;
  }
  double patience() const {  // seconds
    return patience_;
  }
  std::string name() const {
    return transport_ ? transport_->name() : "solo";
  }
  // For the sentences of errors: exchanges from here on belong to this step.
  void at_step(Index step) {
    seen_->step = step;
  }
  // How far this rank has come, for the sentence of an error that knows of no step: "step 12, at
  // exchange 411, 'rows to experts' of layer 2", its last one. Empty before the first step.
  std::string reached() const;
  // From here on exchanges may be of bytes on devices, one for each rank. The transport takes their
  // addresses, and copies what a rank sends itself. Before among().
  void carry_on_devices(std::shared_ptr<Transport> transport) {
    device_transport_ = std::move(transport);
  }
  bool carries_on_devices() const {
    return device_transport_ != nullptr;
  }
  // With those of its groups.
  const ExchangeTotals& totals() const {
    return seen_->totals;
  }
  // Some of these ranks, this one among them, as ranks of their own; the others do not take part.
  // Its exchanges must come in the same order on all of them.
  std::unique_ptr<Comm> among(std::vector<int> members) const;

  // Sends send[r] to rank r and fills receive[r] with what r sends here, its own included; all
  // ranks call this, in the same order. Throws Error(bug) on every rank, naming both, where another
  // rank is in another exchange or sends another number of bytes, and Error(environment) where one
  // has not come after the patience.
  void exchange(About, std::span<const ConstBytes> send, std::span<const Bytes> receive);
  // The same where nobody knows how much comes.
  std::vector<std::vector<std::byte>> exchange(About, std::span<const ConstBytes> send);

  // Exchanges whose parts may come and go while the ranks compute, several at once: as exchange(),
  // all of them agreed on and begun here. What is sent must be there when OpenExchange::send() says
  // so. No other exchange of these ranks may come until each has finished.
  struct Wanted {
    About about;
    std::vector<ConstBytes> send;
    std::vector<Bytes> receive;
    bool on_device = false;  // addresses are those of this rank's device
  };
  std::vector<OpenExchange> open(std::vector<Wanted>);

  // What every rank gives, in order of ranks.
  std::vector<std::vector<std::byte>> gather_bytes(About, ConstBytes mine);
  template <class T>
  std::vector<std::vector<T>> gather(About about, std::span<const T> mine) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<std::vector<T>> out;
    for (const auto& bytes : gather_bytes(about, std::as_bytes(mine))) {
      std::vector<T> values(bytes.size() / sizeof(T));
      if (!values.empty())
        std::memcpy(values.data(), bytes.data(), bytes.size());
      out.push_back(std::move(values));
    }
    return out;
  }
  // What rank 0 gives, on every rank.
  std::string from_first(About, const std::string& mine);
  // Whether any rank says so, on every rank.
  bool any(About, bool mine);
  // Whole numbers may be added in any order.
  void sum(About, std::span<std::int64_t>);

  // Ends every rank with this exit code; does nothing where there is no other.
  void end_all(int code) noexcept;

 private:
  friend class OpenExchange;
  struct Header {
    std::uint64_t number, bytes;
    std::int32_t layer, reserved;
    char kind[40];
  };
  void move(std::span<const ConstBytes> send, std::span<const Bytes> receive, About);
  std::vector<Header> agree(About, std::span<const ConstBytes> send);
  void agree(About, std::span<const ConstBytes> send, std::span<const Bytes> receive);
  // Of those that are waited for the ranks that will not come.
  std::vector<int> gone_of(const std::vector<int>& missing) const;
  [[noreturn]] void refuse_late(const std::vector<int>& missing, std::uint64_t number, About) const;
  [[noreturn]] void refuse_other(const Header& mine, const Header& other, int rank) const;
  std::string where() const;

  // how a rank is called in sentences: by its number in the whole run
  int named(int rank) const {
    return members_.empty() ? rank : members_[std::size_t(rank)];
  }
  struct Seen {
    Index step = -1;
    std::uint64_t number = 0;  // of the last exchange; 0 = there was none
    About about{""};
    ExchangeTotals totals;
  };

  std::shared_ptr<Transport> transport_;
  std::shared_ptr<Transport> device_transport_;
  std::vector<int> members_;  // of a group: their ranks in the run
  int rank_ = 0, size_ = 1;
  double patience_ = default_patience;
  std::uint64_t number_ = 0;  // of exchanges so far
  std::shared_ptr<Seen> seen_ = std::make_shared<Seen>();
};

// An exchange that was begun with Comm::open(). Where the transport has no flows everything is
// moved at once, when the first part is waited for: then all sends must have been given.
class OpenExchange {
 public:
  // What goes to that rank, this one included, is there. Once for each, in one order on all ranks
  // for exchanges that were begun together.
  void send(int to);
  bool has_come(int from);
  // Returns when what that rank sends is there.
  void wait_for(int from) {
    wait_for_any({&from, 1});
  }
  // One of these whose bytes are there, when there is one.
  int wait_for_any(std::span<const int> from);
  // Looks after what is under way.
  void look();
  // Returns when all has gone and come.
  void finish();

 private:
  friend class Comm;
  OpenExchange(Comm&, Comm::Wanted, std::uint64_t number);
  void begin();
  void refuse_unsent() const;
  void move_at_once();
  template <class Done>
  void wait(const Done&);

  Comm* comm_;
  Comm::Wanted wanted_;
  std::uint64_t number_;
  std::unique_ptr<Flow> flow_;
  std::vector<bool> sent_;
  bool moved_ = false;  // of a transport without flows
};

// One rank, for those who need no other.
class Solo final : public Comm {};

}  // namespace moe
