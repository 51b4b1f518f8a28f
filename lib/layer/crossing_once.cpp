// Rows of tokens of which none goes twice to a rank (Send::once) or to a node (Send::nodes): a list
// says where each is wanted. Copies alone, so the same bytes of every result.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "lib/layer/crossing.h"

namespace moe {
namespace {

// Rows of the home, one a token, in the order in which tokens come first.
class DifferentRows {
 public:
  // Returns the place of the token's row.
  int add(int token, Index row) {
    const auto [at, fresh] = place_.try_emplace(token, int(row_.size()));
    if (fresh)
      row_.push_back(row);
    return at->second;
  }
  const std::vector<Index>& rows() const {
    return row_;
  }

 private:
  std::unordered_map<int, int> place_;
  std::vector<Index> row_;
};

// What a home says to a rank: of each row that the rank computes for it its place among the
// different ones; and where the rank hands rows on, their number and for each rank of the node how
// many of them and which.
using Words = std::vector<int>;

class WordReader {
 public:
  explicit WordReader(const std::vector<std::byte>& bytes) : words_(bytes.size() / sizeof(int)) {
    if (!words_.empty())
      std::memcpy(words_.data(), bytes.data(), words_.size() * sizeof(int));
  }
  Index one() {
    return words_.at(next_++);
  }
  std::vector<Index> many(Index count) {
    std::vector<Index> out;
    for (Index i = 0; i < count; ++i)
      out.push_back(one());
    return out;
  }

 private:
  Words words_;
  std::size_t next_ = 0;
};

// The different rows that these ranks of a node want, and what the one that hands them on is told.
std::vector<Index> rows_of_node(const std::vector<DifferentRows>& wanted,
                                const std::vector<int>& ranks, const Matrix<int>& token,
                                Words& words) {
  DifferentRows all;
  Words lists;
  for (const int q : ranks) {
    const std::vector<Index>& rows = wanted[std::size_t(q)].rows();
    lists.push_back(int(rows.size()));
    for (const Index s : rows)
      lists.push_back(all.add(token(0, s), s));
  }
  words.push_back(int(all.rows().size()));
  words.insert(words.end(), lists.begin(), lists.end());
  return all.rows();
}

Index number_of(const std::vector<Index>& places) {
  return places.empty() ? 0 : *std::ranges::max_element(places) + 1;
}

template <class S>
void append(std::vector<S>& to, View<const S> from, const std::vector<Index>& rows) {
  for (const Index r : rows)
    to.insert(to.end(), from.row(r).begin(), from.row(r).end());
}

// Rows that leave and come, by rank.
template <class S>
struct Parcels {
  explicit Parcels(int ranks) : out(std::size_t(ranks)), in(std::size_t(ranks)) {}
  void exchange(Comm& group, About about) {
    std::vector<ConstBytes> send;
    std::vector<Bytes> receive;
    for (std::size_t r = 0; r < out.size(); ++r) {
      send.push_back(std::as_bytes(std::span(out[r])));
      receive.push_back(std::as_writable_bytes(in[r].flat()));
    }
    group.exchange(about, send, receive);
  }
  std::vector<std::vector<S>> out;
  std::vector<Matrix<S>> in;
};

}  // namespace

// What the home knows of its rows, and says to each rank.
template <class S>
std::vector<Words> Crossing<S>::route_home(const Plan& plan, CrossingTape<S>& t) const {
  const int ranks = group_.size();
  const int home = group_.rank();
  const Matrix<int> token = plan.token.to_host();
  std::vector<Words> words(std::size_t(ranks), Words{});
  std::vector<DifferentRows> wanted(words.size());
  for (std::size_t r = 0; r < words.size(); ++r) {
    for (Index s = t.first_sent[r]; s < t.first_sent[r] + t.sent[r]; ++s)
      words[r].push_back(wanted[r].add(token(0, s), s));
  }
  t.route.first.resize(words.size());
  for (int r = 0; r < ranks; ++r) {
    auto& first = t.route.first[std::size_t(r)];
    if (way_.straight(home, r))
      first = wanted[std::size_t(r)].rows();
    else if (way_.hands_on(home, r, ranks))
      first =
          rows_of_node(wanted, way_.on_node(way_.node_of(r), ranks), token, words[std::size_t(r)]);
  }
  return words;
}

template <class S>
void Crossing<S>::find_route(const Plan& plan, CrossingTape<S>& t) {
  const int ranks = group_.size();
  const int here = group_.rank();
  const std::vector<Words> words = route_home(plan, t);
  std::vector<ConstBytes> send;
  for (const Words& w : words)
    send.push_back(std::as_bytes(std::span(w)));
  const auto said = group_.exchange({"places of rows", layer_}, send);
  t.route.on.resize(words.size());
  for (int h = 0; h < ranks; ++h) {
    WordReader in(said[std::size_t(h)]);
    t.route.place.push_back(in.many(t.come[std::size_t(h)]));
    t.route.different.push_back(number_of(t.route.place.back()));
    t.route.coming.push_back(way_.straight(h, here) ? t.route.different.back() : 0);
    if (!way_.hands_on(h, here, ranks))
      continue;
    t.route.coming.back() = in.one();
    t.route.on[std::size_t(h)].resize(words.size());
    for (const int q : way_.on_node(way_.node_of(here), ranks))
      t.route.on[std::size_t(h)][std::size_t(q)] = in.many(in.one());
  }
}

// Rows of other nodes go to the ranks of this one that want them. `came`: what came from each rank,
// and after it the rows of each that this one wants.
template <class S>
void Crossing<S>::hand_on(const char* what, const CrossingRoute& route,
                          std::vector<Matrix<S>>& came, Index cols) {
  struct Elsewhere {
    std::size_t home, by;  // who hands its rows on here
    Index first;           // of what that one hands on
  };
  const int here = group_.rank();
  Parcels<S> parcels(group_.size());
  std::vector<Elsewhere> elsewhere;
  std::vector<Index> rows(came.size(), 0);
  for (std::size_t h = 0; h < came.size(); ++h) {
    if (way_.straight(int(h), here))
      continue;
    const auto by = std::size_t(way_.relay(int(h), way_.node_of(here), group_.size()));
    elsewhere.push_back({h, by, rows[by]});
    rows[by] += route.different[h];
    for (std::size_t q = 0; q < route.on[h].size(); ++q)
      append(parcels.out[q], std::as_const(came[h]).view(), route.on[h][q]);
  }
  for (std::size_t r = 0; r < rows.size(); ++r)
    parcels.in[r] = Matrix<S>(rows[r], cols);
  parcels.exchange(group_, {what, layer_});
  for (const Elsewhere& e : elsewhere) {
    const View<const S> from = std::as_const(parcels.in[e.by]).view();
    came[e.home] = Matrix<S>(route.different[e.home], cols);
    std::ranges::copy(from.slice(e.first, came[e.home].rows()).flat(), came[e.home].data());
  }
}

template <class S>
std::vector<Array<S>> Crossing<S>::send_once(const char* what, const CrossingTape<S>& t,
                                             View<const S> home) {
  const CrossingRoute& route = t.route;
  std::vector<Array<S>> here;
  if (route.first.empty())
    return here;
  Matrix<S> copy;
  if (lie_ != RowsLie::on_host && !home.empty()) {
    copy = Matrix<S>(home.rows, home.cols);
    backend_.to_host(home.data, copy.data(), std::size_t(home.size()) * sizeof(S));
    home = std::as_const(copy).view();
  }
  Parcels<S> parcels(group_.size());
  for (std::size_t r = 0; r < route.first.size(); ++r) {
    append(parcels.out[r], home, route.first[r]);
    parcels.in[r] = Matrix<S>(route.coming[r], home.cols);
  }
  parcels.exchange(group_, {what, layer_});
  if (way_.send == Send::nodes)
    hand_on("rows within a node", route, parcels.in, home.cols);
  for (std::size_t h = 0; h < parcels.in.size(); ++h) {
    Matrix<S> rows(Index(route.place[h].size()), home.cols);
    for (Index s = 0; s < rows.rows(); ++s)
      std::ranges::copy(parcels.in[h].row(route.place[h][std::size_t(s)]), rows.row(s).begin());
    here.emplace_back(backend_, std::as_const(rows).view());
  }
  return here;
}

// What this rank sent of rows, and what was chosen here.
template <class S>
void Crossing<S>::count(const Plan& plan, const CrossingTape<S>& t) {
  const int ranks = group_.size();
  const int here = group_.rank();
  const Matrix<int> token = plan.token.to_host();
  const std::unordered_set<int> tokens(token.flat().begin(), token.flat().end());
  CrossedRows now{.tokens = Index(tokens.size()), .choices = plan.slots};
  for (int r = 0; r < ranks; ++r) {
    const auto at = std::size_t(r);
    const bool near = way_.node_of(r) == way_.node_of(here);
    if (r != here) {
      const bool twice = t.route.first.empty();
      (near ? now.near : now.far) += twice ? t.sent[at] : Index(t.route.first[at].size());
      (near ? now.back_near : now.back_far) += t.come[at];
    }
    for (std::size_t q = 0; !t.route.on.empty() && q < t.route.on[at].size(); ++q)
      now.near += int(q) == here ? 0 : Index(t.route.on[at][q].size());
  }
  crossed_ += now;
}

#define MEMBERS(S)                                                                               \
  template std::vector<Words> Crossing<S>::route_home(const Plan&, CrossingTape<S>&) const;      \
  template void Crossing<S>::find_route(const Plan&, CrossingTape<S>&);                          \
  template void Crossing<S>::hand_on(const char*, const CrossingRoute&, std::vector<Matrix<S>>&, \
                                     Index);                                                     \
  template std::vector<Array<S>> Crossing<S>::send_once(const char*, const CrossingTape<S>&,     \
                                                        View<const S>);                          \
  template void Crossing<S>::count(const Plan&, const CrossingTape<S>&);
MEMBERS(float)
MEMBERS(double)
#undef MEMBERS

}  // namespace moe
