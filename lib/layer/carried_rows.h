// Rows that cross between ranks while these compute: what goes to each rank and what comes from it,
// in place on a host and on devices that a transport reaches, else by copies on the host.
#pragma once
#include <algorithm>
#include <optional>

#include "lib/backend/array.h"
#include "lib/core/comm.h"
#include "lib/core/parallel.h"

namespace moe {

enum class RowsLie { on_host, on_device, behind_copies };

template <class S>
class CarriedRows {
 public:
  CarriedRows(Memory& memory, RowsLie lie, About about)
      : memory_(memory), lie_(lie), wanted_{.about = about, .send = {}, .receive = {}} {
    wanted_.on_device = lie == RowsLie::on_device;
  }

  // Of the next rank: what goes there, once send() says so, and where lies what comes from it.
  void add(View<const S> out, View<S> in) {
    parts_.push_back({out, in, {}, {}});
    Part& part = parts_.back();
    if (lie_ == RowsLie::behind_copies) {
      part.going = Matrix<S>(out.rows, out.cols);
      part.coming = Matrix<S>(in.rows, in.cols);
      out = std::as_const(part.going).view();
      in = part.coming.view();
    }
    wanted_.send.push_back(std::as_bytes(out.flat()));
    wanted_.receive.push_back(std::as_writable_bytes(in.flat()));
  }
  static void open(Comm& group, const std::vector<CarriedRows*>& all) {
    std::vector<Comm::Wanted> wanted;
    for (CarriedRows* rows : all)
      wanted.push_back(std::move(rows->wanted_));
    std::vector<OpenExchange> opened = group.open(std::move(wanted));
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i]->exchange_ = std::move(opened[i]);
  }

  void send(int to) {
    Part& part = parts_[std::size_t(to)];
    if (!part.going.empty())
      memory_.to_host(part.out.data, part.going.data(), bytes(part.out));
    exchange_->send(to);
  }
  bool has_come(int from) {
    return exchange_->has_come(from);
  }
  int wait_for_any(std::span<const int> from) {
    return exchange_->wait_for_any(from);
  }
  void take(int from) {
    exchange_->wait_for(from);
    Part& part = parts_[std::size_t(from)];
    if (!part.coming.empty())
      memory_.to_device(part.coming.data(), part.in.data, bytes(part.in));
    part.coming = {};
  }
  void look() {
    exchange_->look();
  }
  void finish() {
    exchange_->finish();
    for (int r = 0; r < int(parts_.size()); ++r)
      take(r);
  }

 private:
  struct Part {
    View<const S> out;
    View<S> in;
    Matrix<S> going, coming;  // copies on the host; empty = none
  };
  template <class T>
  static std::size_t bytes(View<T> rows) {
    return std::size_t(rows.size()) * sizeof(S);
  }

  Memory& memory_;
  RowsLie lie_;
  Comm::Wanted wanted_;
  std::vector<Part> parts_;  // (ranks)
  std::optional<OpenExchange> exchange_;
};

// Exchanges that are open together: what goes to owners, and what comes back.
template <class S>
struct ThereAndBack {
  std::vector<CarriedRows<S>*> there, back;

  void open(Comm& group) {
    CarriedRows<S>::open(group, all());
  }
  std::vector<CarriedRows<S>*> all() const {
    std::vector<CarriedRows<S>*> out = there;
    out.insert(out.end(), back.begin(), back.end());
    return out;
  }
};

// Blocks of rows, each of one rank (Block::rank), in the order in which rows come.
template <class S, class Block>
class InTurn {
 public:
  InTurn(const Comm& group, std::span<Block> blocks, const ThereAndBack<S>& rows)
      : group_(group), rows_(rows) {
    for (Block& block : blocks)
      left_.push_back(&block);
  }

  // Sends all that goes there, computes each block when its rank's rows have come, those of this
  // rank while it waits for others, and sends back what it has for a rank when its blocks are
  // through.
  template <class Compute>
  void run(const Compute& compute) {
    send_all();
    const BetweenPieces look([this] {
      for (CarriedRows<S>* rows : rows_.all())
        rows->look();
    });
    while (!left_.empty()) {
      Block& block = take_next();
      for (CarriedRows<S>* rows : rows_.there)
        rows->take(block.rank);
      compute(block);
      if (std::ranges::find(left_, block.rank, &Block::rank) != left_.end())
        continue;
      for (CarriedRows<S>* rows : rows_.back)
        rows->send(block.rank);
    }
    for (CarriedRows<S>* rows : rows_.all())
      rows->finish();
  }

 private:
  void send_all() {
    for (int step = 1; step <= group_.size(); ++step) {  // each rank begins with another one
      for (CarriedRows<S>* rows : rows_.there)
        rows->send((group_.rank() + step) % group_.size());
    }
  }
  Block& take_next() {
    const auto at = next();
    Block& block = **at;
    left_.erase(at);
    return block;
  }
  auto next() {
    std::vector<int> others;
    auto own = left_.end();
    for (auto at = left_.begin(); at != left_.end(); ++at) {
      const int rank = (*at)->rank;
      if (rank != group_.rank() && rows_.there[0]->has_come(rank))
        return at;
      if (rank != group_.rank())
        others.push_back(rank);
      else if (own == left_.end())
        own = at;
    }
    if (own != left_.end())
      return own;
    return std::ranges::find(left_, rows_.there[0]->wait_for_any(others), &Block::rank);
  }

  const Comm& group_;
  const ThereAndBack<S>& rows_;
  std::vector<Block*> left_;
};

}  // namespace moe
