#include "lib/model/ownership.h"

#include <algorithm>
#include <utility>

#include "lib/backend/host_memory.h"
#include "lib/core/error.h"
#include "lib/layer/parameter.h"
#include "lib/model/squares.h"

namespace moe {
namespace {

constexpr Index piece_numbers = Index(1) << 15;
constexpr Index bundle_numbers = Index(1) << 21;  // of one exchange, about
constexpr Index large_numbers = Index(1) << 18;   // a parameter that has an exchange of its own

using Numbers = Parcel<float>;

// Puts the runs of a gradient behind each other; returns what follows them there.
float* packed(Memory& memory, View<const float> gradient, const std::vector<NumberRange>& runs,
              float* to) {
  for (const NumberRange& run : runs) {
    memory.to_host(gradient.data + run.first, to, std::size_t(run.count) * sizeof(float));
    to += run.count;
  }
  return to;
}

// The other way.
const float* unpacked(Memory& memory, const float* from, const std::vector<NumberRange>& runs,
                      View<float> gradient) {
  for (const NumberRange& run : runs) {
    float* const to = gradient.data + run.first;
    if (to != from)  // they were summed there
      memory.to_device(from, to, std::size_t(run.count) * sizeof(float));
    from += run.count;
  }
  return from;
}

// Of some parameters the runs of a rank, node by node.
Numbers packed_nodes(Memory& memory, const std::vector<LaneSums::Node>& nodes, std::size_t first,
                     std::size_t last, const std::vector<std::vector<NumberRange>>& owned,
                     Index numbers) {
  Numbers to(numbers * Index(nodes.size()));
  float* at = to.span().data();
  for (const LaneSums::Node& node : nodes) {
    for (std::size_t p = first; p < last; ++p)
      at = packed(memory, node.gradient[p].view(), owned[p], at);
  }
  return to;
}

// Takes the numbers of these runs into an array that has room for them alone.
const float* into_shard(Backend<float>& backend, const float* from,
                        const std::vector<NumberRange>& runs, Array<float>& shard) {
  Index own = 0;
  for (const NumberRange& run : runs)
    own += run.count;
  if (shard.view().size() != own)
    shard = Array<float>(backend, 1, own);
  return unpacked(backend, from, {{0, own}}, shard.view());
}

// The numbers of runs that are one stretch at most.
std::span<float> stretch(View<float> all, const std::vector<NumberRange>& runs) {
  if (runs.empty())
    return {};
  return {all.data + runs[0].first, std::size_t(runs[0].count)};
}

// Or into the gradient of a parameter; where it has none, the array of a lane will do.
const float* into_gradient(Memory& memory, const float* from, const std::vector<NumberRange>& runs,
                           Parameter<float>& parameter, Array<float>& of_lane) {
  if (parameter.grad().empty())
    parameter.exchange_grad(std::move(of_lane));
  return unpacked(memory, from, runs, parameter.grad());
}

// The sums of nodes, by the tree, each made in the place of one of its parts: of `home`, where that
// is one of them. (Which of two is added to the other changes no bit.)
class Tree {
 public:
  explicit Tree(const float* home) : home_(home) {}
  void add(Lanes lanes, std::span<float> numbers) {
    nodes_.emplace_back(lanes, numbers);
  }
  std::span<float> sum(Lanes node) {
    for (const auto& [lanes, numbers] : nodes_) {
      if (lanes == node)
        return numbers;
    }
    if (node.count <= 1)
      throw Error(Exit::bug, concat("the gradient of lane ", node.first, " has not come"));
    const auto [left, right] = parts_of(node);
    std::span<float> to = sum(left);
    std::span<float> by = sum(right);
    if (by.data() == home_)
      std::swap(to, by);
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] += by[i];
    return to;
  }

 private:
  const float* home_;
  std::vector<std::pair<Lanes, std::span<float>>> nodes_;
};

// The sum over all lanes of what ranks have, by rank its nodes of `count` numbers each; made in the
// place of the first node of rank `home`.
std::span<float> sum_of(const std::vector<std::span<float>>& of_rank,
                        const std::vector<std::vector<Lanes>>& nodes, Index lanes, Index count,
                        int home) {
  Tree tree(of_rank[std::size_t(home)].data());
  for (std::size_t r = 0; r < of_rank.size(); ++r) {
    std::span<float> at = of_rank[r];
    for (const Lanes& node : nodes[r]) {
      tree.add(node, at.first(std::size_t(count)));
      at = at.subspan(std::size_t(count));
    }
  }
  return tree.sum({0, lanes});
}

}  // namespace

Ownership::Ownership(Comm& comm, Backend<float>& backend, Index lanes, std::vector<Lanes> of_rank,
                     std::vector<Trained> trained)
    : comm_(comm),
      backend_(backend),
      on_host_(dynamic_cast<HostBackend<float>*>(&backend) != nullptr),
      lanes_(lanes),
      of_rank_(std::move(of_rank)),
      trained_(std::move(trained)),
      owned_(std::size_t(comm.size()), std::vector<std::vector<NumberRange>>(trained_.size())) {
  for (std::size_t p = 0; p < trained_.size(); ++p)
    cut(p);
  bundle();
}

// The pieces of a parameter, and their owners: stretches of equal length, the first of them another
// rank's for each parameter, so that small ones do not all go to the same.
void Ownership::cut(std::size_t p) {
  const std::size_t before = pieces_.size();
  for (const NumberRange& run : trained_[p].rows) {
    for (Index at = 0; at < run.count; at += piece_numbers)
      pieces_.push_back({p, run.first + at, std::min(piece_numbers, run.count - at), 0});
  }
  const Index ranks = comm_.size();
  const Index all = Index(pieces_.size() - before);
  for (Index r = 0; r < ranks; ++r) {
    const int owner = int((r + Index(p)) % ranks);
    std::vector<NumberRange>& owned = owned_[std::size_t(owner)][p];
    for (Index i = all * r / ranks; i < all * (r + 1) / ranks; ++i) {
      Piece& piece = pieces_[before + std::size_t(i)];
      piece.owner = owner;
      if (!owned.empty() && owned.back().first + owned.back().count == piece.first)
        owned.back().count += piece.count;
      else
        owned.push_back({piece.first, piece.count});
    }
  }
}

void Ownership::bundle() {
  Index numbers = 0;
  bool after_large = false;
  for (std::size_t p = 0; p < trained_.size(); ++p) {
    const Index size = trained_[p].parameter->size();
    const bool large = size >= large_numbers;
    if (bundles_.empty() || large || after_large || numbers >= bundle_numbers) {
      bundles_.push_back({p, p});
      numbers = 0;
    }
    bundles_.back().last = p + 1;
    numbers += size;
    after_large = large;
  }
}

View<float> Ownership::gradient(std::size_t p, NumberRange part) {
  if (!sharded_)
    return {trained_[p].parameter->grad().data + part.first, 1, part.count};
  Index at = 0;
  for (const NumberRange& run : owned(p)) {
    if (part.first >= run.first && part.first + part.count <= run.first + run.count)
      return {shard_.at(p).view().data + at + part.first - run.first, 1, part.count};
    at += run.count;
  }
  throw Error(Exit::bug, concat("a gradient of '", trained_[p].parameter->name(),
                                "' was wanted of a rank that does not own it"));
}

Index Ownership::owned_in(const Bundle& b, int rank) const {
  Index n = 0;
  for (std::size_t p = b.first; p < b.last; ++p) {
    for (const NumberRange& run : owned(rank, p))
      n += run.count;
  }
  return n;
}

void Ownership::reduce(std::vector<LaneSums::Node> nodes) {
  if (comm_.alone()) {
    for (std::size_t p = 0; p < trained_.size(); ++p)
      trained_[p].parameter->exchange_grad(std::move(nodes.at(0).gradient[p]));
    return;
  }
  for (const Bundle& b : bundles_) {
    reduce(b, nodes);
    for (LaneSums::Node& node : nodes) {
      for (std::size_t p = b.first; p < b.last; ++p)
        node.gradient[p] = {};
    }
  }
}

bool Ownership::in_place(const Bundle& b) const {
  if (!on_host_ || b.last - b.first != 1)
    return false;
  return std::ranges::all_of(owned_,
                             [&](const auto& of_rank) { return of_rank[b.first].size() <= 1; });
}

// By rank what it owns of the gradients here.
Ownership::Parts Ownership::parts_by_rank(const Bundle& b, std::vector<LaneSums::Node>& nodes) {
  Parts out;
  const bool where_they_lie = in_place(b) && nodes.size() == 1;
  for (int r = 0; r < comm_.size(); ++r) {
    const auto& owned = owned_[std::size_t(r)];
    if (where_they_lie) {
      out.of_rank.push_back(stretch(nodes[0].gradient[b.first].view(), owned[b.first]));
      continue;
    }
    out.copies.push_back(packed_nodes(backend_, nodes, b.first, b.last, owned, owned_in(b, r)));
    out.of_rank.push_back(out.copies.back().span());
  }
  return out;
}

void Ownership::reduce(const Bundle& b, std::vector<LaneSums::Node>& nodes) {
  const Parts parts = parts_by_rank(b, nodes);
  const Index mine = owned_in(b, comm_.rank());
  std::vector<ConstBytes> send;
  std::vector<Numbers> in;
  std::vector<std::span<float>> came;
  std::vector<std::vector<Lanes>> lanes_of_ranks;
  for (int r = 0; r < comm_.size(); ++r) {
    const bool own = r == comm_.rank();
    const std::span<float> part = parts.of_rank[std::size_t(r)];
    send.push_back(std::as_bytes(part));
    lanes_of_ranks.push_back(nodes_of(r));
    in.emplace_back(own ? 0 : mine * Index(lanes_of_ranks.back().size()));
    came.push_back(own ? part : in.back().span());
  }
  travel(comm_, {"gradients of lanes"}, std::move(send), in);
  const float* at = sum_of(came, lanes_of_ranks, lanes_, mine, comm_.rank()).data();
  shard_.resize(trained_.size());
  for (std::size_t p = b.first; p < b.last; ++p) {
    at = sharded_ ? into_shard(backend_, at, owned(p), shard_[p])
                  : into_gradient(backend_, at, owned(p), *trained_[p].parameter,
                                  nodes.at(0).gradient[p]);
  }
}

void Ownership::share(What what) {
  if (comm_.alone())
    return;
  for (const Bundle& b : bundles_)
    share(b, what);
}

View<float> Ownership::all_of(std::size_t p, What what) {
  Parameter<float>& parameter = *trained_[p].parameter;
  return what == What::values ? parameter.mutate() : parameter.grad();
}

namespace {

About about(Ownership::What what) {
  return {what == Ownership::What::values ? "values of parameters" : "summed gradients"};
}

}  // namespace

void Ownership::share_in_place(std::size_t p, What what) {
  const View<float> all = all_of(p, what);
  std::vector<Bytes> receive;
  for (int r = 0; r < comm_.size(); ++r)
    receive.push_back(std::as_writable_bytes(stretch(all, owned(r, p))));
  const ConstBytes out = receive[std::size_t(comm_.rank())];
  std::vector<ConstBytes> send(receive.size(), out);
  travel(comm_, about(what), std::move(send), std::move(receive));
}

void Ownership::share(const Bundle& b, What what) {
  if (in_place(b))
    return share_in_place(b.first, what);
  const Numbers out(owned_in(b, comm_.rank()));
  float* to = out.span().data();
  for (std::size_t p = b.first; p < b.last; ++p)
    to = packed(backend_, all_of(p, what), owned(p), to);
  std::vector<Numbers> in(std::size_t(comm_.size()));
  for (int r = 0; r < comm_.size(); ++r) {
    if (r != comm_.rank())
      in[std::size_t(r)] = Numbers(owned_in(b, r));
  }
  travel(comm_, about(what), std::vector<ConstBytes>(in.size(), out.bytes()), in);
  for (int r = 0; r < comm_.size(); ++r) {
    const float* from = in[std::size_t(r)].span().data();
    for (std::size_t p = b.first; p < b.last && r != comm_.rank(); ++p)
      from = unpacked(backend_, from, owned(r, p), all_of(p, what));
  }
}

std::vector<std::vector<double>> Ownership::squares() {
  Index mine = 0;
  for (const Piece& piece : pieces_)
    mine += piece.owner == comm_.rank();
  Squares squares(backend_, mine);
  Index n = 0;
  for (const Piece& piece : pieces_) {
    if (piece.owner == comm_.rank()) {
      squares.add(n++, gradient(piece.parameter, {piece.first, piece.count}));
    }
  }
  const Matrix<double> own = squares.read();
  const auto sums = comm_.gather<double>({"squares of gradients"}, own.flat());
  std::vector<std::size_t> next(sums.size());
  std::vector<std::vector<double>> out(trained_.size());
  for (const Piece& piece : pieces_) {
    const auto owner = std::size_t(piece.owner);
    out[piece.parameter].push_back(sums[owner].at(next[owner]++));
  }
  return out;
}

}  // namespace moe
