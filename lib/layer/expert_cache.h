// Experts whose numbers lie elsewhere (a mapped file), brought into memory when rows need them: as
// many as a limit of bytes holds, those used longest ago go first. Matrices are held in the type
// that the backend multiplies, which halves them in bf16. One buffer serves all layers of a model,
// whose experts have one shape. Passes over many tokens need nearly all experts of every layer in
// turn, so that those used longest ago are those needed next: where not all have room, products
// read their rows in the file (of bf16 products where the file has bf16) and nothing is kept. So do
// passes over a few tokens whose rows are multiplied as they lie, which is faster than bringing
// them. What comes out is what Backend::experts gives for all of them at once, bit for bit where a
// backend computes every expert's rows for themselves. While some compute, the pages of the next
// ones are asked for.
#pragma once
#include <map>
#include <mutex>
#include <span>
#include <utility>

#include "lib/layer/feed_forward.h"

namespace moe {

// Asks for bytes of mapped files before they are read, and returns at once; gives their pages back
// to the system when they were read.
class ReadAhead {
 public:
  virtual ~ReadAhead() = default;
  virtual void ask(std::vector<std::span<const std::byte>>) = 0;
  virtual void forget(std::span<const std::span<const std::byte>>) = 0;
};

template <class S>
class ExpertCache {
 public:
  // At least one expert is held, at most `experts` (of all layers). Memory is taken when the first
  // is asked for.
  ExpertCache(Backend<S>&, Index limit_bytes, Index experts);

  // The bodies of all slots, xs (S,H) -> ys (S,H), as Backend::experts; nothing is left for a
  // backward pass.
  void experts(const ExpertParameters<S>&, View<const S> xs, const Plan&, View<S> ys);

  // From now on pages are asked for before they are read. `layers`: those of a model, in the order
  // in which a pass comes to them.
  void read_ahead(std::vector<const ExpertParameters<S>*> layers, std::unique_ptr<ReadAhead>);

  // experts held at most; 0 before the first was asked for
  Index room() const {
    return Index(place_.size());
  }
  std::int64_t hits() const {
    return hits_;
  }
  std::int64_t misses() const {
    return misses_;
  }

 private:
  using Key = std::pair<std::uint64_t, Index>;  // a layer's parameter, an expert
  struct Place {
    Key key{0, -1};
    std::uint64_t used = 0;  // when, by clock_
  };
  struct Part {  // of an expert's numbers: rows of one parameter
    Array<S> numbers;
    Array<std::uint16_t> halves;  // instead, of a matrix that the backend multiplies as bf16
    Index rows = 0, cols = 0;     // an expert's
  };

  Index bytes_of(const ExpertParameters<S>&) const;  // of one expert in memory
  Index all_room(const ExpertParameters<S>&) const;  // for so many
  bool reads_in_place(const ExpertParameters<S>&, const Plan&) const;
  std::vector<std::span<const std::byte>> in_file(const ExpertParameters<S>&,
                                                  std::span<const Index> experts) const;
  void ask(const ExpertParameters<S>&, std::span<const Index> experts);
  void ask_next_layer(const ExpertParameters<S>&, std::size_t count);
  // The experts of a layer that are computed in one go, or brought in at once.
  std::vector<std::span<const Index>> groups(const ExpertParameters<S>&,
                                             std::span<const Index> used, const Matrix<int>& offset,
                                             bool in_place) const;
  void run_in_place(const ExpertParameters<S>&, View<const S> xs, const Plan&,
                    const Matrix<int>& offset, std::span<const Index> group, View<S> ys);
  void open(const ExpertParameters<S>&);
  void check_shape(const ExpertParameters<S>&) const;
  std::vector<Index> make_room(std::size_t count);
  std::vector<Index> bring(const ExpertParameters<S>&,
                           std::span<const Index> experts);  // the place of each
  void run_group(const ExpertParameters<S>&, View<const S> xs, const Plan&,
                 const Matrix<int>& offset /*(1,E+1)*/, std::span<const Index> group, View<S> ys);
  void fill(const ExpertParameters<S>&, std::span<const Index> experts,
            std::span<const Index> places);
  void fill_part(const Parameter<S>&, Part&, Index expert, Index place);
  ExpertWeights<S> weights(const ExpertParameters<S>&, Index first, Index count) const;

  Backend<S>& backend_;
  std::mutex copying_;
  Index limit_, experts_;
  std::vector<Part> part_;  // gate, up, down, gate_bias, up_bias, down_bias
  std::vector<Place> place_;
  std::map<Key, Index> at_;
  std::uint64_t clock_ = 0;
  std::int64_t hits_ = 0, misses_ = 0;
  std::vector<const ExpertParameters<S>*> layers_;
  std::unique_ptr<ReadAhead> ahead_;
};

extern template class ExpertCache<float>;
extern template class ExpertCache<double>;

}  // namespace moe
