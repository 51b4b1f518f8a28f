// Every exchange begins with a header from each rank to each: which exchange of the run it is, of
// what kind and layer, and how many bytes follow. Ranks that went different ways find out there,
// before bytes of one thing are taken for another, or everybody waits for ever.
#include "lib/core/comm.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

std::string what_is(std::uint64_t number, const char* kind, int layer) {
  const std::string of_layer = layer >= 0 ? concat(" of layer ", layer) : "";
  return concat("exchange ", number, ", '", kind, "'", of_layer);
}

class Seconds {
 public:
  explicit Seconds(double& to) : to_(to) {}
  ~Seconds() {
    to_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  double& to_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Of a flow over all ranks those of a group.
class GroupFlow final : public Flow {
 public:
  GroupFlow(std::unique_ptr<Flow> all, std::vector<int> members)
      : all_(std::move(all)), members_(std::move(members)) {}
  void send(int to, ConstBytes out) override {
    all_->send(members_[std::size_t(to)], out);
  }
  void look() override {
    all_->look();
  }
  bool has_come(int from) override {
    return all_->has_come(members_[std::size_t(from)]);
  }
  bool done(std::vector<int>& missing) override {
    const bool done = all_->done(missing);
    for (int& r : missing)
      r = int(std::ranges::find(members_, r) - members_.begin());
    return done;
  }
  void pause(double waited) override {
    all_->pause(waited);
  }

 private:
  std::unique_ptr<Flow> all_;
  std::vector<int> members_;
};

// Some ranks of another transport.
class GroupTransport final : public Transport {
 public:
  GroupTransport(std::shared_ptr<Transport> all, std::vector<int> members)
      : all_(std::move(all)), members_(std::move(members)) {
    rank_ = int(std::ranges::find(members_, all_->rank()) - members_.begin());
  }
  const char* name() const override {
    return all_->name();
  }
  int rank() const override {
    return rank_;
  }
  int size() const override {
    return int(members_.size());
  }
  bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive, double patience,
                std::vector<int>& missing) override {
    std::vector<ConstBytes> out(std::size_t(all_->size()));
    std::vector<Bytes> in(out.size());
    for (std::size_t m = 0; m < members_.size(); ++m) {
      out[std::size_t(members_[m])] = send[m];
      in[std::size_t(members_[m])] = receive[m];
    }
    const bool done = all_->exchange(out, in, patience, missing);
    for (int& r : missing)
      r = int(std::ranges::find(members_, r) - members_.begin());
    return done;
  }
  std::unique_ptr<Flow> flow(std::span<const Bytes> receive) override {
    std::vector<Bytes> in(std::size_t(all_->size()));
    for (std::size_t m = 0; m < members_.size(); ++m)
      in[std::size_t(members_[m])] = receive[m];
    auto flow = all_->flow(in);
    return flow ? std::make_unique<GroupFlow>(std::move(flow), members_) : nullptr;
  }
  std::vector<int> gone() override {
    std::vector<int> out;
    for (const int r : all_->gone()) {
      const auto member = std::ranges::find(members_, r);
      if (member != members_.end())
        out.push_back(int(member - members_.begin()));
    }
    return out;
  }
  void end_all(int code) noexcept override {
    all_->end_all(code);
  }

 private:
  std::shared_ptr<Transport> all_;
  std::vector<int> members_;
  int rank_ = 0;
};

}  // namespace

std::unique_ptr<Comm> Comm::among(std::vector<int> members) const {
  if (!transport_ || members.size() == 1)
    return std::make_unique<Comm>();
  auto out =
      std::make_unique<Comm>(std::make_shared<GroupTransport>(transport_, members), patience_);
  if (device_transport_)
    out->carry_on_devices(std::make_shared<GroupTransport>(device_transport_, members));
  out->members_ = std::move(members);
  out->seen_ = seen_;
  return out;
}

Comm::Comm(std::shared_ptr<Transport> transport, double patience)
    : transport_(std::move(transport)),
      rank_(transport_->rank()),
      size_(transport_->size()),
      patience_(patience) {}

std::string Comm::where() const {
  return seen_->step < 0 ? "" : concat("step ", seen_->step, ": ");
}

std::string Comm::reached() const {
  if (seen_->step < 0)
    return "";
  const std::string last = what_is(seen_->number, seen_->about.kind, seen_->about.layer);
  return concat("step ", seen_->step, seen_->number > 0 ? ", at " + last : "");
}

void Comm::refuse_other(const Header& mine, const Header& other, int rank) const {
  throw Error(Exit::bug,
              concat(where(), "ranks are out of step: rank ", named(rank_), " is in ",
                     what_is(mine.number, mine.kind, mine.layer), ", and rank ", named(rank),
                     " in ", what_is(other.number, other.kind, other.layer)))
      .hint("this is a bug in moe; please report it with the command line");
}

// Bytes to and from the other ranks, whose sizes all know.
void Comm::move(std::span<const ConstBytes> send, std::span<const Bytes> receive, About about) {
  const Seconds counted(seen_->totals.seconds);
  std::vector<int> missing;
  if (!transport_->exchange(send, receive, patience_, missing))
    refuse_late(missing, number_, about);
}

std::vector<int> Comm::gone_of(const std::vector<int>& missing) const {
  std::vector<int> out;
  for (const int r : transport_->gone()) {
    if (std::ranges::find(missing, r) != missing.end())
      out.push_back(r);
  }
  return out;
}

void Comm::refuse_late(const std::vector<int>& missing, std::uint64_t number, About about) const {
  const auto names_of = [&](const std::vector<int>& ranks) {
    std::string names;
    for (const int r : ranks)
      names += concat(names.empty() ? "" : ", ", named(r));
    return names;
  };
  const std::string exchange = what_is(number, about.kind, about.layer);
  if (const std::vector<int> gone = gone_of(missing); !gone.empty()) {
    throw Error(Exit::environment,
                concat(where(), "the process of rank ", names_of(gone), " has ended; rank ",
                       named(rank_), " waited for it in ", exchange))
        .hint("what the launcher and the system's log say of it: was memory short?");
  }
  throw Error(Exit::environment, concat(where(), "rank ", named(rank_), " has waited ", patience_,
                                        " s for rank ", names_of(missing), " in ", exchange))
      .hint("is that process, or its host, still there? --patience sets how long a rank waits");
}

// The headers of all ranks, this one's own among them.
std::vector<Comm::Header> Comm::agree(About about, std::span<const ConstBytes> send) {
  ++number_;
  seen_->number = number_;
  seen_->about = about;
  ++seen_->totals.exchanges;
  const std::size_t ranks{std::size_t(size_)};
  std::vector<Header> mine(ranks);
  std::vector<Header> theirs(ranks);
  std::vector<ConstBytes> out(ranks);
  std::vector<Bytes> in(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    mine[r] = {.number = number_,
               .bytes = send[r].size(),
               .layer = about.layer,
               .reserved = 0,
               .kind = {}};
    std::strncpy(mine[r].kind, about.kind, sizeof(mine[r].kind) - 1);
    out[r] = std::as_bytes(std::span(&mine[r], 1));
    in[r] = std::as_writable_bytes(std::span(&theirs[r], 1));
    if (int(r) != rank_)
      seen_->totals.bytes += std::int64_t(send[r].size());
  }
  theirs[std::size_t(rank_)] = mine[std::size_t(rank_)];
  move(out, in, about);
  for (std::size_t r = 0; r < ranks; ++r) {
    const Header& other = theirs[r];
    if (other.number != number_ || other.layer != about.layer ||
        std::strncmp(other.kind, mine[r].kind, sizeof(other.kind)) != 0)
      refuse_other(mine[r], other, int(r));
  }
  return theirs;
}

// The same where this rank knows what it takes: all must send that much.
void Comm::agree(About about, std::span<const ConstBytes> send, std::span<const Bytes> receive) {
  const std::size_t self{std::size_t(rank_)};
  if (send.size() != std::size_t(size_) || receive.size() != send.size() ||
      send[self].size() != receive[self].size())
    throw Error(Exit::bug, concat("the lists of exchange '", about.kind, "' do not fit its ranks"));
  if (alone())
    return;
  const std::vector<Header> headers = agree(about, send);
  for (std::size_t r = 0; r < headers.size(); ++r) {
    if (headers[r].bytes != receive[r].size()) {
      throw Error(Exit::bug,
                  concat(where(), "in ", what_is(number_, about.kind, about.layer), " rank ",
                         named(int(r)), " sends ", headers[r].bytes, " bytes where rank ",
                         named(rank_), " takes ", receive[r].size()))
          .hint("this is a bug in moe; please report it with the command line");
    }
  }
}

namespace {

void copy_own(ConstBytes from, Bytes to) {
  if (!from.empty() && from.data() != to.data())
    std::memcpy(to.data(), from.data(), from.size());
}

}  // namespace

void Comm::exchange(About about, std::span<const ConstBytes> send, std::span<const Bytes> receive) {
  agree(about, send, receive);
  copy_own(send[std::size_t(rank_)], receive[std::size_t(rank_)]);
  if (!alone())
    move(send, receive, about);
}

// All are agreed on before the first of them moves, so that no header waits behind rows.
std::vector<OpenExchange> Comm::open(std::vector<Wanted> wanted) {
  std::vector<OpenExchange> out;
  for (Wanted& w : wanted) {
    agree(w.about, w.send, w.receive);
    out.push_back(OpenExchange(*this, std::move(w), number_));
  }
  for (OpenExchange& exchange : out)
    exchange.begin();
  return out;
}

OpenExchange::OpenExchange(Comm& comm, Comm::Wanted wanted, std::uint64_t number)
    : comm_(&comm), wanted_(std::move(wanted)), number_(number), sent_(wanted_.send.size()) {}

void OpenExchange::begin() {
  if (!comm_->alone() && !wanted_.on_device)
    flow_ = comm_->transport_->flow(wanted_.receive);
  moved_ = comm_->alone();
}

void OpenExchange::send(int to) {
  const auto at = std::size_t(to);
  if (sent_[at])
    throw Error(Exit::bug, concat("exchange '", wanted_.about.kind, "' sends to a rank twice"));
  sent_[at] = true;
  if (wanted_.on_device)
    return;
  if (to == comm_->rank())
    copy_own(wanted_.send[at], wanted_.receive[at]);
  else if (flow_)
    flow_->send(to, wanted_.send[at]);
}

void OpenExchange::refuse_unsent() const {
  if (std::ranges::find(sent_, false) != sent_.end()) {
    throw Error(Exit::bug, concat("exchange '", wanted_.about.kind,
                                  "' is waited for before all that it sends is there"));
  }
}

void OpenExchange::move_at_once() {
  if (std::exchange(moved_, true))
    return;
  refuse_unsent();
  const Seconds counted(comm_->seen_->totals.seconds);
  std::vector<int> missing;
  Transport& transport = wanted_.on_device ? *comm_->device_transport_ : *comm_->transport_;
  if (!transport.exchange(wanted_.send, wanted_.receive, comm_->patience_, missing))
    comm_->refuse_late(missing, number_, wanted_.about);
}

bool OpenExchange::has_come(int from) {
  return flow_ ? from == comm_->rank() || flow_->has_come(from) : moved_;
}
void OpenExchange::look() {
  if (flow_)
    flow_->look();
}

// `done(missing)`, with the ranks that are waited for
template <class Done>
void OpenExchange::wait(const Done& done) {
  const Seconds counted(comm_->seen_->totals.seconds);
  const auto start = std::chrono::steady_clock::now();
  std::vector<int> missing;
  while (!done(missing)) {
    const double waited =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (waited > comm_->patience_ || !comm_->gone_of(missing).empty())
      comm_->refuse_late(missing, number_, wanted_.about);
    flow_->pause(waited);
    missing.clear();
  }
}

int OpenExchange::wait_for_any(std::span<const int> from) {
  if (!flow_) {
    move_at_once();
    return from[0];
  }
  int come = from[0];
  wait([&](std::vector<int>& missing) {
    for (const int r : from) {
      if (has_come(r)) {
        come = r;
        return true;
      }
      missing.push_back(r);
    }
    return false;
  });
  return come;
}

void OpenExchange::finish() {
  if (!flow_)
    return move_at_once();
  refuse_unsent();
  wait([&](std::vector<int>& missing) { return flow_->done(missing); });
}

std::vector<std::vector<std::byte>> Comm::exchange(About about, std::span<const ConstBytes> send) {
  std::vector<std::vector<std::byte>> out(send.size());
  if (!alone()) {
    const std::vector<Header> headers = agree(about, send);
    std::vector<Bytes> receive;
    for (std::size_t r = 0; r < headers.size(); ++r) {
      out[r].resize(headers[r].bytes);
      receive.emplace_back(out[r]);
    }
    move(send, receive, about);
  }
  const ConstBytes own = send[std::size_t(rank_)];
  out[std::size_t(rank_)].assign(own.begin(), own.end());
  return out;
}

std::vector<std::vector<std::byte>> Comm::gather_bytes(About about, ConstBytes mine) {
  return exchange(about, std::vector<ConstBytes>(std::size_t(size_), mine));
}

std::string Comm::from_first(About about, const std::string& mine) {
  if (alone())
    return mine;
  const auto all = gather_bytes(
      about, first() ? std::as_bytes(std::span(mine.data(), mine.size())) : ConstBytes{});
  return {reinterpret_cast<const char*>(all[0].data()), all[0].size()};
}

bool Comm::any(About about, bool mine) {
  std::int64_t says = mine ? 1 : 0;
  sum(about, std::span(&says, 1));
  return says > 0;
}

void Comm::sum(About about, std::span<std::int64_t> values) {
  if (alone())
    return;
  const auto all = gather<std::int64_t>(about, values);
  std::ranges::fill(values, 0);
  for (const auto& theirs : all) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] += theirs[i];
  }
}

void Comm::end_all(int code) noexcept {
  if (transport_)
    transport_->end_all(code);
}

}  // namespace moe
