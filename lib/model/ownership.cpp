#include "lib/model/ownership.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/layer/parameter.h"
#include "lib/model/squares.h"

namespace moe {
namespace {

constexpr Index piece_numbers = Index(1) << 15;
constexpr Index bundle_numbers = Index(1) << 23;  // of one exchange, about

using Numbers = std::vector<float>;

ConstBytes bytes_of(const Numbers& n) {
  return std::as_bytes(std::span(n));
}

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
    memory.to_device(from, gradient.data + run.first, std::size_t(run.count) * sizeof(float));
    from += run.count;
  }
  return from;
}

// The sums of the nodes that came, by the tree; what is used up is moved away.
class Tree {
 public:
  void add(Lanes lanes, Numbers n) {
    nodes_.emplace_back(lanes, std::move(n));
  }
  Numbers sum(Lanes node) {
    for (auto& [lanes, numbers] : nodes_) {
      if (lanes == node)
        return std::move(numbers);
    }
    if (node.count <= 1)
      throw Error(Exit::bug, concat("the gradient of lane ", node.first, " has not come"));
    const auto [left, right] = parts_of(node);
    Numbers a = sum(left);
    const Numbers b = sum(right);
    for (std::size_t i = 0; i < a.size(); ++i)
      a[i] += b[i];
    return a;
  }

 private:
  std::vector<std::pair<Lanes, Numbers>> nodes_;
};

// The sum over all lanes of what ranks sent: by rank its nodes, of `count` numbers each.
Numbers sum_of(const std::vector<Numbers>& in, const std::vector<std::vector<Lanes>>& nodes,
               Index lanes, Index count) {
  Tree tree;
  for (std::size_t r = 0; r < in.size(); ++r) {
    auto at = in[r].begin();
    for (const Lanes& node : nodes[r]) {
      tree.add(node, Numbers(at, at + count));
      at += count;
    }
  }
  return tree.sum({0, lanes});
}

}  // namespace

Ownership::Ownership(Comm& comm, Backend<float>& backend, Index lanes, std::vector<Lanes> of_rank,
                     std::vector<Trained> trained)
    : comm_(comm),
      backend_(backend),
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
  for (std::size_t p = 0; p < trained_.size(); ++p) {
    if (bundles_.empty() || numbers >= bundle_numbers) {
      bundles_.push_back({p, p});
      numbers = 0;
    }
    bundles_.back().last = p + 1;
    numbers += trained_[p].parameter->size();
  }
}

View<float> Ownership::numbers(std::size_t p, What what) const {
  Parameter<float>& parameter = *trained_[p].parameter;
  const View<float> all = what == What::values ? parameter.mutate() : parameter.grad();
  return {all.data, 1, all.size()};
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

void Ownership::reduce(const Bundle& b, const std::vector<LaneSums::Node>& nodes) {
  std::vector<Numbers> out(std::size_t(comm_.size()));
  std::vector<Numbers> in(out.size());
  std::vector<ConstBytes> send;
  std::vector<Bytes> receive;
  const Index mine = owned_in(b, comm_.rank());
  for (int r = 0; r < comm_.size(); ++r) {
    Numbers& to = out[std::size_t(r)];
    to.resize(std::size_t(owned_in(b, r)) * nodes.size());
    float* at = to.data();
    for (const LaneSums::Node& node : nodes) {
      for (std::size_t p = b.first; p < b.last; ++p)
        at = packed(backend_, node.gradient[p].view(), owned(r, p), at);
    }
    send.push_back(bytes_of(to));
    in[std::size_t(r)].resize(std::size_t(mine) * nodes_of(r).size());
    receive.push_back(std::as_writable_bytes(std::span(in[std::size_t(r)])));
  }
  comm_.exchange({"gradients of lanes"}, send, receive);
  std::vector<std::vector<Lanes>> nodes_of_ranks;
  for (int r = 0; r < comm_.size(); ++r)
    nodes_of_ranks.push_back(nodes_of(r));
  const Numbers sum = sum_of(in, nodes_of_ranks, lanes_, mine);
  const float* at = sum.data();
  for (std::size_t p = b.first; p < b.last; ++p) {
    trained_[p].parameter->want_grad(backend_);
    at = unpacked(backend_, at, owned(p), numbers(p, What::gradients));
  }
}

void Ownership::share(What what) {
  if (comm_.alone())
    return;
  for (const Bundle& b : bundles_)
    share(b, what);
}

void Ownership::share(const Bundle& b, What what) {
  const auto each_run = [&](int rank, const auto& visit) {
    for (std::size_t p = b.first; p < b.last; ++p) {
      for (const NumberRange& run : owned(rank, p))
        visit(numbers(p, what).data + run.first, run.count);
    }
  };
  Numbers out(std::size_t(owned_in(b, comm_.rank())));
  float* to = out.data();
  each_run(comm_.rank(), [&](const float* from, Index count) {
    backend_.to_host(from, to, std::size_t(count) * sizeof(float));
    to += count;
  });
  std::vector<Numbers> in(std::size_t(comm_.size()));
  std::vector<Bytes> receive;
  for (int r = 0; r < comm_.size(); ++r) {
    in[std::size_t(r)].resize(std::size_t(owned_in(b, r)));
    receive.push_back(std::as_writable_bytes(std::span(in[std::size_t(r)])));
  }
  const std::vector<ConstBytes> send(in.size(), bytes_of(out));
  comm_.exchange({what == What::values ? "values of parameters" : "summed gradients"}, send,
                 receive);
  for (int r = 0; r < comm_.size(); ++r) {
    const float* from = in[std::size_t(r)].data();
    if (r == comm_.rank())
      continue;
    each_run(r, [&](float* there, Index count) {
      backend_.to_device(from, there, std::size_t(count) * sizeof(float));
      from += count;
    });
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
      const View<const float> all = numbers(piece.parameter, What::gradients);
      squares.add(n++, {all.data + piece.first, 1, piece.count});
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
