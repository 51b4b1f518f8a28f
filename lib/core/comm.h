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

// How bytes reach another rank. Ranks are numbered from 0.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const = 0;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Sends send[r] to rank r and fills receive[r] from it, for every r but this rank's own; empty =
  // nothing. Both sides know the sizes, which may be beyond 2^31. Returns true when all is done,
  // and false after `patience` seconds: then `missing` has the ranks that have not answered.
  virtual bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive,
                        double patience, std::vector<int>& missing) = 0;
  // Ends every rank with this exit code.
  virtual void end_all(int code) noexcept = 0;
  // Every rank is through and calls this; no exchange comes after it.
  virtual void finish() {}
};

// What an exchange is for; all ranks must mean the same one.
struct About {
  const char* kind;  // at most 39 characters
  int layer = -1;    // -1 = of no layer
};

struct ExchangeTotals {
  std::int64_t exchanges = 0, bytes = 0;  // bytes that this rank sent to others
  double seconds = 0;                     // in exchanges: of moving bytes, and of waiting
};

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
  std::string name() const {
    return transport_ ? transport_->name() : "solo";
  }
  // For the sentences of errors: exchanges from here on belong to this step.
  void at_step(Index step) {
    seen_->step = step;
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
  struct Header {
    std::uint64_t number, bytes;
    std::int32_t layer, reserved;
    char kind[40];
  };
  void move(std::span<const ConstBytes> send, std::span<const Bytes> receive, About);
  std::vector<Header> agree(About, std::span<const ConstBytes> send);
  [[noreturn]] void refuse_other(const Header& mine, const Header& other, int rank) const;
  std::string where() const;

  // how a rank is called in sentences: by its number in the whole run
  int named(int rank) const {
    return members_.empty() ? rank : members_[std::size_t(rank)];
  }
  struct Seen {
    Index step = -1;
    ExchangeTotals totals;
  };

  std::shared_ptr<Transport> transport_;
  std::vector<int> members_;  // of a group: their ranks in the run
  int rank_ = 0, size_ = 1;
  double patience_ = default_patience;
  std::uint64_t number_ = 0;  // of exchanges so far
  std::shared_ptr<Seen> seen_ = std::make_shared<Seen>();
};

// One rank, for those who need no other.
class Solo final : public Comm {};

}  // namespace moe
